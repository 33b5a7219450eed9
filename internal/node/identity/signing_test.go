package identity

import (
	"crypto/x509"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
)

func TestSigningDue(t *testing.T) {
	received := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(clock string) time.Time {
		c, err := time.Parse("15:04:05.0", clock)
		if err != nil {
			t.Fatal(err)
		}
		return time.Date(2026, 1, 1, c.Hour(), c.Minute(), c.Second(), c.Nanosecond(), time.UTC)
	}
	for _, c := range []struct {
		name        string
		life        time.Duration
		root, since string
		jitter      float64
		want        string
	}{
		{"nothing known", time.Hour, "", "12:00:00.0", 0, "12:30:00.0"},
		{"the same root", time.Hour, "a", "12:01:00.0", 0, "12:30:00.0"},
		{"another, earliest", time.Hour, "b", "12:01:00.0", -1, "12:01:00.2"},
		{"another, latest", time.Hour, "b", "12:01:00.0", 1, "12:01:10.2"},
		{"a short life is spread less", 10 * time.Second, "b", "12:00:01.0", 1, "12:00:02.2"},
		{"received after that", time.Hour, "b", "11:50:00.0", 0, "12:00:05.2"},
		{"never later than usual", time.Hour, "b", "12:29:59.0", 0, "12:30:00.0"},
	} {
		svid := &SVID{
			Received: received, under: "a",
			Chain: []*x509.Certificate{{NotBefore: received, NotAfter: received.Add(c.life)}},
		}
		var s Signing
		s.Set(c.root, at(c.since))
		if got := s.due(svid, c.jitter); !got.Equal(at(c.want)) {
			t.Errorf("%s: due %s, want %s", c.name, got.Format("15:04:05.0"), c.want)
		}
	}
}

func TestSigningChanged(t *testing.T) {
	var s Signing
	first := s.Changed()
	s.Set("a", time.Now())
	select {
	case <-first:
	default:
		t.Error("a change was not announced")
	}
	second := s.Changed()
	s.Set("a", time.Now())
	select {
	case <-second:
		t.Error("a change was announced that is none")
	default:
	}
}

func TestWithRoots(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	key, now := newKey(t), time.Now()
	svid, err := NewSVID(key, [][]byte{ours.leaf(t, "spiffe://cards.example/isthmus/node/n", key, now.Add(-time.Minute),
		now.Add(time.Hour)).Raw}, ours.pem(), now)
	if err != nil {
		t.Fatal(err)
	}
	both, err := svid.WithRoots([]*x509.Certificate{other.root, ours.root})
	if err != nil || len(both.Roots) != 2 || len(svid.Roots) != 1 ||
		both.State().Root != spiffe.Fingerprint(ours.root) {
		t.Errorf("got %v, %v", both, err)
	}
	if _, err := svid.WithRoots([]*x509.Certificate{other.root}); err == nil {
		t.Error("a certificate under none of the roots was kept")
	}
}
