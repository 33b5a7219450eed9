package xds

import (
	"testing"
	"testing/synctest"

	"isthmus.dev/isthmus/internal/envoy"
)

func TestHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const roots = "bundle/cards.example"
		secret := func(body string) *envoy.Resource { return res(envoy.SecretType, roots, body) }
		s := newServer()
		for _, name := range []string{"a", "away", "none"} {
			s.Publish(name, 1, told(nil, secret("old"), listener("l", "1")))
		}
		s.Publish("stranger", 1, told(nil, listener("l", "1")))
		a, none, stranger := dial(t, s, "a"), dial(t, s, "none"), dial(t, s, "stranger")
		for _, c := range []*client{a, none, stranger} {
			c.begin()
		}
		synctest.Wait()
		same(t, "before anything is answered", s.Holders(envoy.SecretType, roots),
			[]Holder{{Proxy: "a", Connected: true}, {Proxy: "away"}, {Proxy: "none", Connected: true}})
		a.want(envoy.SecretType, roots)
		a.quiet()
		none.quiet()
		synctest.Wait()
		all := []Holder{
			{Proxy: "a", Connected: true, Acked: true},
			{Proxy: "away"},
			{Proxy: "none", Connected: true, Acked: true},
		}
		same(t, "one has it, one never asked for any", s.Holders(envoy.SecretType, roots), all)

		s.Publish("a", 2, told(nil, secret("old and new"), listener("l", "1")))
		same(t, "changed", s.Holders(envoy.SecretType, roots)[0], Holder{Proxy: "a", Connected: true})
		r := a.next()
		same(t, "sent", s.Holders(envoy.SecretType, roots)[0], Holder{Proxy: "a", Connected: true})
		a.refuse[roots] = "bad certificate"
		a.answer(r)
		synctest.Wait()
		same(t, "refused", s.Holders(envoy.SecretType, roots)[0],
			Holder{Proxy: "a", Connected: true, Nack: "bad certificate"})
		delete(a.refuse, roots)
		s.Publish("a", 3, told(nil, secret("old and new, mended"), listener("l", "1")))
		a.quiet()
		synctest.Wait()
		same(t, "mended", s.Holders(envoy.SecretType, roots), all)

		s.Publish("a", 4, told(nil, secret("old and new, mended"), listener("l", "22")))
		a.quiet()
		synctest.Wait()
		same(t, "another type changed", s.Holders(envoy.SecretType, roots), all)

		a.hangUp()
		a.end()
		same(t, "gone", s.Holders(envoy.SecretType, roots)[0], Holder{Proxy: "a"})
		back := a.resume(s, "a")
		back.quiet()
		synctest.Wait()
		same(t, "back with what it had", s.Holders(envoy.SecretType, roots), all)
	})
}
