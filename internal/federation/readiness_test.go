package federation

import (
	"context"
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
	m   *mesh
	mu  sync.Mutex // guards own
	own []snapshot.OfferedName
}

func (u *unreadiness) say(names ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.own = nil
	for _, n := range names {
		u.own = append(u.own, snapshot.OfferedName{Namespace: "default", Name: n})
	}
}

// names of what a peer said is not ready, or "nothing heard".
func (u *unreadiness) names(peer string) string {
	r := u.m.snapshot().Peers[peer].Readiness
	if r == nil || r.Sequence == 0 {
		return "nothing heard"
	}
	var out []string
	for _, n := range r.Unready {
		out = append(out, n.Namespace+"/"+n.Name)
	}
	return strings.Join(out, " ")
}

// forget what a peer said.
func (u *unreadiness) forget(peer string) {
	held := u.m.snapshot().Peers[peer].Readiness.Sequence
	u.m.must(u.m.db.SetPeerReadiness(context.Background(), peer, snapshot.Readiness{}, held))
}

// tellsReadiness lets a mesh say and hear of readiness.
func tellsReadiness(u *unreadiness) option {
	return func(m *mesh, c *Config) {
		u.m = m
		c.Unready = func(string) []snapshot.OfferedName {
			u.mu.Lock()
			defer u.mu.Unlock()
			return slices.Clone(u.own)
		}
	}
}

// A peer is told which services have no endpoint, when they have one again, and anew when it has forgotten.
func TestReadinessIsTold(t *testing.T) {
	t.Parallel()
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
	there.forget("cards") // as a control plane does whose state was restored
	hears("default/tokens")
	here.say()
	cards.Wake()
	hears("")
}

// A report is bounded before it is decoded, and sorted afterwards.
func TestParseReadiness(t *testing.T) {
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	said := `{"sequence":3,"unready":[{"namespace":"b","name":"x"},{"namespace":"a","name":"y"},{"namespace":"b","name":"x"}]}`
	r, err := ParseReadiness([]byte(said), now)
	want := []snapshot.OfferedName{{Namespace: "a", Name: "y"}, {Namespace: "b", Name: "x"}}
	if err != nil || r.Sequence != 3 || !slices.Equal(r.Unready, want) {
		t.Errorf("read as %+v, %v", r, err)
	}
	for doc, want := range map[string]string{
		`{"sequence":1,"unready":[]}` + strings.Repeat(" ", 192<<10):       "larger than 196608 bytes",
		`{"sequence":1,"unready":[` + strings.Repeat(`{},`, 1024) + `{}]}`: "names more than 1000 services",
		`{"unready":[]}`: "no sequence number",
		`{"sequence":1}`: "no list of services",
		`{"sequence":1,"unready":[{"namespace":"a","name":"b.c"}]}`: "service 1 of the report: its name or namespace is no DNS label",
		`{"sequence":1785592800000001,"unready":[]}`:                "check the clocks of both sides",
	} {
		if _, err := ParseReadiness([]byte(doc), now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %s", doc, err, want)
		}
	}
}

// What was taken while the own clock was ahead blocks nothing once it is right.
func TestReadinessOfATimeToComeBlocksNothing(t *testing.T) {
	n := &network{where: map[string]string{}}
	var here unreadiness
	cards := newMesh(t, n, "cards", "192.0.2.1", tellsReadiness(&here))
	retail := newMesh(t, n, "retail", "192.0.2.2")
	join(t, cards, retail)
	say := func(at time.Time, name string) {
		t.Helper()
		doc := fmt.Sprintf(`{"sequence":%d,"unready":[{"namespace":"default","name":%q}]}`, at.UnixMicro(), name)
		if code, text := cards.post(cards.asPeer(retail, "retail"), PathReadiness,
			strings.NewReader(doc)); code != 204 {
			t.Fatalf("%s: %d %s", name, code, text)
		}
	}
	cards.skip(2 * time.Hour)
	say(time.Now().Add(time.Hour), "early")
	cards.skip(-2 * time.Hour)
	if say(time.Now(), "late"); here.names("retail") != "default/late" {
		t.Errorf("held %s", here.names("retail"))
	}
}

// Nothing is told to a peer before it has answered, nor while it does not: a refresh that succeeds does that.
func TestReadinessWaitsForAnAnswer(t *testing.T) {
	n := &network{where: map[string]string{}}
	var here, there unreadiness
	cards := newMesh(t, n, "cards", "192.0.2.1", tellsReadiness(&here))
	retail := newMesh(t, n, "retail", "192.0.2.2", tellsReadiness(&there))
	join(t, cards, retail)
	here.say("payments")
	try := func() time.Duration { return cards.reportIfDue(t.Context(), "retail", new(readinessDelivery)) }
	if wait := try(); wait != 0 || there.names("cards") != "nothing heard" {
		t.Errorf("before any answer: again in %s, heard: %s", wait, there.names("cards"))
	}
	cards.updateHealth("retail", func(h *Health) { h.RefreshOK, h.RefreshError = cards.Now(), "refused" })
	if wait := try(); wait != 0 || there.names("cards") != "nothing heard" {
		t.Errorf("while it does not answer: again in %s, heard: %s", wait, there.names("cards"))
	}
	cards.updateHealth("retail", func(h *Health) { h.RefreshError = "" })
	var told readinessDelivery
	again := func() time.Duration { return cards.reportIfDue(t.Context(), "retail", &told) }
	if again(); there.names("cards") != "default/payments" {
		t.Errorf("once it answers, heard: %s", there.names("cards"))
	}
	first := told.sequence
	here.say("tokens")
	if wait := again(); wait <= 0 || told.sequence != first {
		t.Errorf("at once after the first, told again %v, again in %s", told.sequence != first, wait)
	}
	cards.skip(time.Second)
	if again(); there.names("cards") != "default/tokens" {
		t.Errorf("after the pause, heard: %s", there.names("cards"))
	}
	cards.skip(time.Second)
	if second := told.sequence; again() != 0 || told.sequence != second {
		t.Error("told again what it knows")
	}
	n.setCut(true)
	here.say("payments")
	if wait := again(); wait <= 0 || wait > time.Second || there.names("cards") != "default/tokens" {
		t.Errorf("on a wire that is cut, again in %s, heard: %s", wait, there.names("cards"))
	}
	n.setCut(false)
	cards.skip(time.Second)
	if again(); there.names("cards") != "default/payments" {
		t.Errorf("on a wire that is whole again, heard: %s", there.names("cards"))
	}
	if err := cards.Suspend(t.Context(), "retail"); err != nil {
		t.Fatal(err)
	}
	here.say("nothing of this")
	if wait := again(); wait != 0 || there.names("cards") != "default/payments" {
		t.Errorf("suspended, again in %s, heard: %s", wait, there.names("cards"))
	}
}

// A control plane whose clock was ahead when it spoke last is heard all the same after it has started again.
func TestReadinessFollowsWhatThePeerHolds(t *testing.T) {
	n := &network{where: map[string]string{}}
	var here, there unreadiness
	cards := newMesh(t, n, "cards", "192.0.2.1", tellsReadiness(&here))
	retail := newMesh(t, n, "retail", "192.0.2.2", tellsReadiness(&there))
	join(t, cards, retail)
	tell := func(name string) uint64 {
		t.Helper()
		here.say(name)
		cards.updateHealth("retail", func(h *Health) { h.RefreshOK = cards.Now() })
		var told readinessDelivery
		if cards.reportIfDue(t.Context(), "retail", &told); there.names("cards") != "default/"+name {
			t.Fatalf("heard %s instead of %s: %s", there.names("cards"), name, cards.Health("retail").ReadinessError)
		}
		return told.sequence
	}
	first := tell("payments")
	cards.skip(-30 * time.Second)
	if second := tell("tokens"); second != first+1 {
		t.Errorf("the report after %d is numbered %d", first, second)
	}
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
	t.Parallel()
	n := &network{where: map[string]string{}}
	var here unreadiness
	cards := newMesh(t, n, "cards", "192.0.2.1", tellsReadiness(&here))
	retail := newMesh(t, n, "retail", "192.0.2.2")
	join(t, cards, retail)
	taken := map[int]int{}
	began := time.Now()
	for i := range 40 {
		code, _ := cards.post(cards.asPeer(retail, "retail"), PathReadiness,
			strings.NewReader(fmt.Sprintf(`{"sequence":%d,"unready":[]}`, i+1)))
		taken[code]++
	}
	if most := readinessPace.burst + int(time.Since(began).Seconds()*float64(readinessPace.perSecond)) +
		1; taken[204] > most || taken[429] == 0 {
		t.Errorf("answers %v, want at most %d of 204 and the rest 429", taken, most)
	}
}
