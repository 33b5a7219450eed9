package federation

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
)

// unreadiness is what a mesh of a test has to say to its peers, and hears of them.
type unreadiness struct {
	mu    sync.Mutex // guards the rest
	own   []snapshot.OfferedName
	heard map[string]*snapshot.Readiness
}

func (u *unreadiness) say(names ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.own = nil
	for _, n := range names {
		u.own = append(u.own, snapshot.OfferedName{Namespace: "default", Name: n})
	}
}

func (u *unreadiness) of(peer string) *snapshot.Readiness {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.heard[peer]
}

// names of what a peer said is not ready, or "nothing heard".
func (u *unreadiness) names(peer string) string {
	r := u.of(peer)
	if r == nil {
		return "nothing heard"
	}
	var out []string
	for _, n := range r.Unready {
		out = append(out, n.Namespace+"/"+n.Name)
	}
	return strings.Join(out, " ")
}

func (u *unreadiness) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.heard)
}

// tellsReadiness lets a mesh say and hear of readiness; what it hears stands in its snapshots.
func tellsReadiness(u *unreadiness) option {
	u.heard = map[string]*snapshot.Readiness{}
	return func(m *mesh, c *Config) {
		c.Unready = func(string) []snapshot.OfferedName {
			u.mu.Lock()
			defer u.mu.Unlock()
			return slices.Clone(u.own)
		}
		c.SetReadiness = func(peer string, r *snapshot.Readiness) {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.heard[peer] = r
		}
		plain := c.Snapshot
		c.Snapshot = func() *snapshot.Snapshot {
			snap := plain()
			for name, p := range snap.Peers {
				p.Readiness = u.of(name)
				snap.Peers[name] = p
			}
			return snap
		}
	}
}

// A peer is told which services have no endpoint, when they have one again, and anew when it has forgotten.
func TestReadinessIsTold(t *testing.T) {
	n := &network{where: map[string]string{}}
	var here, there unreadiness
	cards := newMesh(t, n, "cards", "192.0.2.1", tellsReadiness(&here))
	retail := newMesh(t, n, "retail", "192.0.2.2", tellsReadiness(&there))
	join(t, cards, retail)
	cards.live()
	retail.live()
	hears := func(want string) {
		t.Helper()
		eventually(t, "heard "+want, func() bool { return there.names("cards") == want })
	}
	hears("")
	here.say("payments", "tokens")
	cards.Wake()
	hears("default/payments default/tokens")
	here.say("tokens")
	cards.Wake()
	hears("default/tokens")
	there.forget() // as a control plane does that starts again
	hears("default/tokens")
	here.say()
	cards.Wake()
	hears("")
}

func TestReadinessIsTakenInOrderOnly(t *testing.T) {
	n := &network{where: map[string]string{}}
	var here, there unreadiness
	cards := newMesh(t, n, "cards", "192.0.2.1", tellsReadiness(&here))
	retail := newMesh(t, n, "retail", "192.0.2.2", tellsReadiness(&there))
	join(t, cards, retail)
	say := func(doc string) (int, string) {
		return cards.post(cards.asPeer(retail, "retail"), PathReadiness, strings.NewReader(doc))
	}
	report := func(sequence uint64, name string) string {
		return fmt.Sprintf(`{"sequence":%d,"unready":[{"namespace":"default","name":%q}]}`, sequence, name)
	}
	for _, step := range []struct {
		doc  string
		code int
		held string
	}{
		{report(5, "a"), 204, "default/a"},
		{report(4, "b"), 409, "default/a"},
		{report(5, "b"), 409, "default/a"},
		{report(6, "No Label"), 400, "default/a"},
		{report(uint64(time.Now().Add(time.Hour).UnixMicro()), "b"), 400, "default/a"},
		{`{"sequence":6}`, 400, "default/a"},
		{`{"sequence":6,"unready":[],"secret":1}`, 400, "default/a"},
		{report(6, "c"), 204, "default/c"},
	} {
		if code, text := say(step.doc); code != step.code {
			t.Errorf("%s: %d %s", step.doc, code, text)
		}
		if got := here.names("retail"); got != step.held {
			t.Errorf("%s: held %s", step.doc, got)
		}
	}
	if err := cards.Suspend(t.Context(), "retail"); err != nil {
		t.Fatal(err)
	}
	if code, text := say(report(7, "d")); code != 403 && code != 429 {
		t.Errorf("suspended: %d %s", code, text)
	}
}

// A peer that says something else all the time is not listened to all the time.
func TestReadinessThatFlapsIsBounded(t *testing.T) {
	n := &network{where: map[string]string{}}
	var here unreadiness
	cards := newMesh(t, n, "cards", "192.0.2.1", tellsReadiness(&here))
	retail := newMesh(t, n, "retail", "192.0.2.2")
	join(t, cards, retail)
	taken := map[int]int{}
	began := time.Now()
	for i := range 40 {
		code, _ := cards.post(cards.asPeer(retail, "retail"), PathReadiness, strings.NewReader(fmt.Sprintf(`{"sequence":%d,"unready":[]}`, i+1)))
		taken[code]++
	}
	if most := readinessPace.burst + int(time.Since(began).Seconds()*float64(readinessPace.perSecond)) + 1; taken[204] > most || taken[429] == 0 {
		t.Errorf("answers %v, want at most %d of 204 and the rest 429", taken, most)
	}
}
