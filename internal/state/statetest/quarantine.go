package statetest

import (
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

func quarantines(t *testing.T, s state.Store) {
	ctx := t.Context()
	one := func(proxy, name, content string, since time.Time) state.Quarantine {
		return state.Quarantine{
			Proxy: proxy, Object: snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "default", Name: name},
			Content: content, Reason: "it crashed", Since: since,
		}
	}
	a, b, c := one("n1", "a", "aa", epoch), one("n1", "b", "bb", epoch), one("n2/default/web", "a", "aa", epoch)
	ok(t, s.ChangeQuarantines(ctx, []state.Quarantine{c, b, a}, nil))
	got, err := s.Quarantines(ctx)
	ok(t, err)
	same(t, got, []state.Quarantine{a, b, c})

	again := one("n1", "a", "other", after(time.Hour))
	ok(t, s.ChangeQuarantines(ctx, []state.Quarantine{again}, []state.Quarantine{b, one("n9", "none", "", epoch)}))
	got, err = s.Quarantines(ctx)
	ok(t, err)
	same(t, got, []state.Quarantine{again, c})
}
