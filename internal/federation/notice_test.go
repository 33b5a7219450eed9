package federation

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/waittest"
)

// slow meshes refresh of themselves only once an hour: what comes sooner comes by notice.
func slow(_ *mesh, c *Config) { c.RefreshHint, c.MaxRefresh = time.Hour, time.Hour }

func (m *mesh) held(peer string) []string {
	p := m.meshPeer(peer)
	certs, err := peerrules.ParseRoots(peerrules.Roots(p, m.snapshot().Peers[peer]))
	if err != nil {
		m.t.Fatal(err)
	}
	return fingerprints(certs)
}

func (m *mesh) told(peer string) BundleDelivery {
	told, err := m.BundleDelivery(m.t.Context(), peer)
	if err != nil {
		m.t.Fatal(err)
	}
	return told
}

func TestPeerFollowsANewRootAtOnce(t *testing.T) {
	t.Parallel()
	var inForce atomic.Bool
	cards, retail, _ := pair(t, slow, func(m *mesh, c *Config) {
		if m.td.Name() == "retail.example" {
			c.InForce = func(td string) bool { return td == "cards.example" && inForce.Load() }
		}
	})
	join(t, cards, retail)
	cards.live()
	retail.live()
	before := cards.root.cert
	next := newAuthority(t, "cards-next").cert
	both := []string{spiffe.Fingerprint(before), spiffe.Fingerprint(next)}
	slices.Sort(both)

	eventually(t, "the first bundle fetched", func() bool { return !cards.told("retail").Fetched.IsZero() })
	first := cards.told("retail").Sequence
	cards.setRoots(before, next)
	cards.Wake()
	if told := cards.told("retail"); told.Sequence <= first || !told.Fetched.IsZero() || told.InForce {
		t.Errorf("right after the change: %+v", told)
	}
	eventually(t, "both roots held", func() bool { return slices.Equal(retail.held("cards"), both) })
	waittest.Quiet(2 * noticeEvery)
	if told := cards.told("retail"); told.Fetched.IsZero() || told.InForce || told.Error != "" {
		t.Errorf("fetched, and no proxy has it: %+v", told)
	}
	second := cards.told("retail").Sequence
	inForce.Store(true)
	eventually(t, "the peer's proxies have it", func() bool { return cards.told("retail").InForce })

	cards.setRoots(next, before) // the other one signs: the same bundle
	cards.Wake()
	if told := cards.told("retail"); told.Sequence != second || !told.InForce {
		t.Errorf("the same roots in another order are another bundle: %+v", told)
	}
	if h := retail.Health("cards"); h.RefreshFailures != 0 {
		t.Errorf("the peer failed %d times: %s", h.RefreshFailures, h.RefreshError)
	}
}

// A peer that goes back to fewer roots is heard at once, too.
func TestPeerDropsAWithdrawnRoot(t *testing.T) {
	t.Parallel()
	cards, retail, _ := pair(t, slow)
	next := newAuthority(t, "cards-next").cert
	cards.setRoots(cards.root.cert, next)
	join(t, cards, retail)
	cards.live()
	retail.live()
	eventually(t, "both roots in force",
		func() bool { return cards.told("retail").InForce && len(retail.held("cards")) == 2 })
	cards.setRoots(cards.root.cert) // this test's gateway stays under the first
	cards.Wake()
	eventually(t, "one root held", func() bool { return len(retail.held("cards")) == 1 })
}

// A flood of notices costs the receiver one fetch a second.
func TestNoticesDoNotMakeAFlood(t *testing.T) {
	t.Parallel()
	cards, retail, _ := pair(t, slow, unhurried)
	join(t, cards, retail)
	retail.live()
	eventually(t, "a first refresh", func() bool { return !retail.Health("cards").RefreshOK.IsZero() })
	tries := map[time.Time]bool{}
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); waittest.Pace(5 * time.Millisecond) {
		code, text := retail.post(retail.asPeer(cards, "cards"), PathBundle,
			strings.NewReader(`{"sequence":9,"roots":["none"]}`))
		if code != 200 || strings.TrimSpace(text) != `{"inForce":false}` {
			t.Fatalf("got %d %s", code, text)
		}
		tries[retail.Health("cards").RefreshTried] = true
	}
	if len(tries) < 2 || len(tries) > 5 {
		t.Errorf("%d fetches in 2.5 s", len(tries))
	}
}
