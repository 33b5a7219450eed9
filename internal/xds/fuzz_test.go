package xds

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/waittest"
)

// FuzzConverge plays whatever sequence of changes and requests the bytes spell. When all is quiet, the client must have
// what is published, as far as it subscribed and did not refuse it; and the status must say so.
func FuzzConverge(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		b := make([]byte, random.IntN(300))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		synctest.Test(t, func(t *testing.T) {
			p := &play{
				t: t, server: newServer(), script: script[:min(len(script), 2000)],
				endpoints: map[string]*envoy.Resource{},
			}
			p.connect()
			for p.generation = 1; len(p.script) > 0; p.generation++ {
				p.step()
			}
			p.finish()
		})
	})
}

// play is one run against a model that is too simple to be wrong.
type play struct {
	t          *testing.T
	server     *Server
	script     []byte
	generation uint64

	client     *client
	subscribed map[string]map[string]bool // by type
	published  *envoy.Resources           // nil until there is something
	endpoints  map[string]*envoy.Resource
}

func (p *play) byte() byte {
	if len(p.script) == 0 {
		return 0
	}
	b := p.script[0]
	p.script = p.script[1:]
	return b
}

func (p *play) connect() {
	if p.client == nil {
		p.client = dial(p.t, p.server, "a")
		p.subscribed = map[string]map[string]bool{envoy.EndpointType: {}, envoy.RouteType: {}, envoy.SecretType: {}}
		p.client.begin()
		return
	}
	p.quiet() // nothing is left half read
	for typ, names := range p.subscribed {
		maps.DeleteFunc(p.client.has[typ], func(name, _ string) bool { return !names[name] })
	}
	p.client.hangUp()
	synctest.Wait()
	old := p.client
	p.client = old.resume(p.server, "a")
	for typ, names := range p.subscribed {
		for name := range names {
			if _, had := old.has[typ][name]; !had {
				p.client.want(typ, name)
			}
		}
	}
}

func (p *play) step() {
	switch b := p.byte(); b % 8 {
	case 0, 1:
		p.publish()
	case 2:
		p.publishEndpoints()
	case 3, 4:
		p.subscribe()
	case 5:
		p.answerSome(int(b / 8))
	case 6:
		p.forge()
	case 7:
		if b > 200 {
			p.connect()
		}
	}
}

// content makes version b%4 of a resource; the last is one that the client refuses.
func content(b byte) string { return []string{"one", "second", "the third", "bad!"}[b%4] }

func (p *play) publish() {
	var rs []*envoy.Resource
	for i := range p.byte() % 4 {
		rs = append(rs, cluster(fmt.Sprint("c", i), content(p.byte()), fmt.Sprintf("s%d:80", p.byte()%3)))
	}
	for _, typ := range []string{envoy.ListenerType, envoy.RouteType, envoy.SecretType} {
		for i := range p.byte() % 4 {
			rs = append(rs, res(typ, fmt.Sprint("n", i), content(p.byte())))
		}
	}
	var sets []string
	for i := range p.byte() % 4 {
		sets = append(sets, fmt.Sprint("s", i))
	}
	p.published = told(sets, rs...)
	p.server.Publish("a", p.generation, p.published)
}

func (p *play) publishEndpoints() {
	name := fmt.Sprintf("s%d:80", p.byte()%4)
	if b := p.byte(); b%5 == 0 {
		delete(p.endpoints, name)
		p.server.PublishEndpoints(map[string]*envoy.Resource{name: nil})
	} else {
		p.endpoints[name] = res(envoy.EndpointType, name, content(b))
		p.server.PublishEndpoints(map[string]*envoy.Resource{name: p.endpoints[name]})
	}
}

func (p *play) subscribe() {
	typ := []string{envoy.EndpointType, envoy.RouteType, envoy.SecretType}[p.byte()%3]
	name := fmt.Sprint("n", p.byte()%4)
	if typ == envoy.EndpointType {
		name = strings.Replace(name, "n", "s", 1) + ":80"
	}
	if p.byte()%3 == 0 {
		if p.subscribed[typ][name] {
			delete(p.subscribed[typ], name)
			p.client.send(unsubscribe(typ, name))
		}
		return
	}
	p.subscribed[typ][name] = true
	p.client.want(typ, name)
}

// answerSome reads some of what waits.
func (p *play) answerSome(n int) {
	for range n % 4 {
		if r := p.client.next(); r != nil {
			p.answer(r)
		}
	}
}

func (p *play) answer(r *discoveryv3.DeltaDiscoveryResponse) {
	for _, x := range r.Resources {
		delete(p.client.refuse, x.Name)
		if string(x.Resource.Value) == "bad!" {
			p.client.refuse[x.Name] = "Error: " + x.Name + " is bad"
		}
	}
	p.client.answer(r)
}

func (p *play) forge() {
	typ := envoy.Types[p.byte()%5]
	p.client.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ, ResponseNonce: "forged"})
}

// quiet answers until nothing more comes, however long floods are held back.
func (p *play) quiet() {
	for idle := false; !idle; {
		waittest.Advance(sendPatience / 2)
		idle = true
		for r := p.client.next(); r != nil; r = p.client.next() {
			p.answer(r)
			idle = false
		}
	}
}

func (p *play) finish() {
	p.quiet()
	if !p.client.open() {
		p.t.Fatalf("the stream ended: %v", p.client.end())
	}
	if p.published == nil {
		return
	}
	for _, typ := range envoy.Types {
		p.compare(typ, p.expected(typ))
	}
	p.compareStatus()
}

// expected is what the client should have of a type.
func (p *play) expected(typ string) map[string]*envoy.Resource {
	want := map[string]*envoy.Resource{}
	available := p.published.ByType[typ]
	if typ == envoy.EndpointType {
		for _, s := range p.published.Sets {
			if r := p.endpoints[fmt.Sprintf("%s:%d", s.Host, s.Port)]; r != nil {
				available = append(available, r)
			}
		}
	}
	names, explicit := p.subscribed[typ]
	for _, r := range available {
		if !explicit || names[r.Name] {
			want[r.Name] = r
		}
	}
	return want
}

func (p *play) compare(typ string, want map[string]*envoy.Resource) {
	for name, r := range want {
		if got := p.client.has[typ][name]; got != r.Version && string(r.Body) != "bad!" {
			p.t.Errorf("%s %s: the client has %q, published is %q", ShortType(typ), name, got, r.Version)
		}
	}
	names, explicit := p.subscribed[typ]
	for name := range p.client.has[typ] {
		if want[name] == nil && (!explicit || names[name]) {
			p.t.Errorf("%s %s: the client still has it", ShortType(typ), name)
		}
	}
}

func (p *play) compareStatus() {
	for _, ts := range p.server.Status()[0].Types {
		typ := typeURL(ts.Type)
		bad := slices.ContainsFunc(slices.Collect(maps.Values(p.expected(typ))),
			func(r *envoy.Resource) bool { return string(r.Body) == "bad!" })
		if bad != (ts.Nack != "") {
			p.t.Errorf("%s: something refused is %t, the status says %q", ts.Type, bad, ts.Nack)
		}
		if !bad && ts.Sent != ts.Acked {
			p.t.Errorf("%s: sent %d, acknowledged %d", ts.Type, ts.Sent, ts.Acked)
		}
	}
}
