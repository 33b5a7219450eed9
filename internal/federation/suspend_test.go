package federation

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/sqlite"
	"isthmus.dev/isthmus/internal/state/statetest"
	"isthmus.dev/isthmus/internal/store"
)

var errDisk = errors.New("no space left on device")

// faulty is a state that can no longer be read, or takes so many writes more.
type faulty struct {
	state.Store
	unreadable bool
	hangs      bool // the next reading, until its caller gives up
	writes     int
}

func (f *faulty) write(do func() error) error {
	if f.writes == 0 {
		return errDisk
	}
	f.writes--
	return do()
}

func (f *faulty) Peers(ctx context.Context) ([]state.Peer, error) {
	if f.unreadable {
		return nil, errDisk
	}
	if f.hangs {
		f.hangs = false
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return f.Store.Peers(ctx)
}

func (f *faulty) SetPeerSuspended(ctx context.Context, name string, suspended bool) error {
	return f.write(func() error { return f.Store.SetPeerSuspended(ctx, name, suspended) })
}

func (f *faulty) RevokePeer(ctx context.Context, name string, now time.Time) error {
	return f.write(func() error { return f.Store.RevokePeer(ctx, name, now) })
}

func (f *faulty) AdoptPeerRoots(ctx context.Context, name string, roots []byte, now time.Time) error {
	return f.write(func() error { return f.Store.AdoptPeerRoots(ctx, name, roots, now) })
}

func (f *faulty) SetPeerBundle(
	ctx context.Context, name string, roots []byte, sequence, held uint64, now time.Time,
) error {
	return f.write(func() error { return f.Store.SetPeerBundle(ctx, name, roots, sequence, held, now) })
}

func (f *faulty) EstablishPeer(
	ctx context.Context, p *v1alpha1.MeshPeer, roots []byte, sequence uint64, now time.Time,
) error {
	return f.write(func() error { return f.Store.EstablishPeer(ctx, p, roots, sequence, now) })
}

// plane is a control plane's part in peering over a real store, whose state may fail.
type plane struct {
	*Service
	store *store.Store
	state *faulty
}

// begin starts one over what is kept, as a process does.
func begin(t *testing.T, db state.Store, cfg *snapshot.Config) *plane {
	t.Helper()
	p := &plane{state: &faulty{Store: db, writes: -1}}
	own := peerrules.EncodeRoots([]*x509.Certificate{newAuthority(t, "retail").cert})
	var err error
	if p.store, err = store.Open(t.Context(), store.Config{
		Kept: p.state, Roots: func() []byte { return own }, Now: time.Now, Ended: func(string) bool { return false },
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.store.SetConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	c := Config{
		Door:        door.New(door.Config{}),
		TrustDomain: domain(t, "retail.example"), Name: "retail", Snapshot: p.store.Snapshot, Store: p.state,
		Gateways: func() []Gateway { return nil },
		Identity: func() (*tls.Certificate, error) { return nil, errors.New("no identity") },
		Log:      slog.New(slog.DiscardHandler),
	}
	alone(&c)
	c.Block, c.Unblock, c.Stored = p.store.Shut, p.store.Reopen, p.store.ShutStored
	p.Service, err = New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plane) reason() peerrules.Reason {
	v := peerrules.All(p.snapshotNow(), "retail.example")["cards"]
	if v.Live {
		return "live"
	}
	return v.Reason
}

func openState(t *testing.T) state.Store {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(statetest.Dir(t), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func cardsPeer(roots ...*x509.Certificate) *v1alpha1.MeshPeer {
	p := introduction{
		TrustDomain: mustDomain("cards.example"), KnownAs: "retail",
		GatewayIDs: []string{"spiffe://cards.example/ns/isthmus-system/sa/gateway"},
	}.meshPeer("cards")
	p.Spec.GatewayAddresses = []string{"192.0.2.1:15443"}
	p.Spec.Bundle.Inline = string(peerrules.EncodeRoots(roots))
	return p
}

// A suspension or revocation is in force at once, whatever of the state fails, and is written as soon as it can be.
func TestShuttingOutIsTheLastToFail(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]struct {
		do   func(*plane) error
		want peerrules.Reason
	}{
		"suspend": {func(p *plane) error { return p.Suspend(context.Background(), "cards") }, peerrules.Suspended},
		// a revoked peer by token is gone
		"revoke": {func(p *plane) error { return p.Revoke(context.Background(), "cards") }, ""},
	} {
		for fault, set := range map[string]func(*faulty){
			"nothing": func(*faulty) {}, "writing": func(f *faulty) { f.writes = 0 },
			"reading":                func(f *faulty) { f.unreadable = true },
			"reading hangs, nothing": func(f *faulty) { f.hangs = true },
			"both":                   func(f *faulty) { f.writes, f.unreadable = 0, true },
		} {
			t.Run(name+", "+fault+" fails", func(t *testing.T) {
				db, root := openState(t), newAuthority(t, "cards").cert
				made := cardsPeer(root)
				if err := db.EstablishPeer(t.Context(), made, peerrules.Learned(made, []*x509.Certificate{root}), 1,
					time.Now()); err != nil {
					t.Fatal(err)
				}
				p := begin(t, db, &snapshot.Config{})
				if got := p.reason(); got != "live" {
					t.Fatalf("before: %q", got)
				}
				set(p.state)
				err := act.do(p)
				if failed := fault == "writing" || fault == "both"; failed != (err != nil) || failed &&
					!strings.Contains(err.Error(), "is shut out now") {
					t.Errorf("answered %v", err)
				}
				if got := p.reason(); got != act.want {
					t.Errorf("at once: %q, want %q", got, act.want)
				}
				if err := p.store.Reload(t.Context()); (err != nil) != p.state.unreadable {
					t.Errorf("reload: %v", err)
				}
				if got := p.reason(); got != act.want {
					t.Errorf("after a look at the state: %q, want %q", got, act.want)
				}
				p.writeUnwritten(t.Context()) // in vain, where it fails
				if told := p.Health("cards").Unwritten; (fault == "writing" ||
					fault == "both") != (told == errDisk.Error()) {
					t.Errorf("status says %q", told)
				}
				p.state.unreadable, p.state.writes = false, -1
				p.writeUnwritten(t.Context())
				if got := begin(t, db, &snapshot.Config{}).reason(); got != act.want {
					t.Errorf("after a restart: %q, want %q", got, act.want)
				}
			})
		}
	}
}

// Wherever the process dies, a suspended peer is suspended afterwards: also while another first trust takes the place
// of the one before.
func TestACrashLeavesASuspendedPeerSuspended(t *testing.T) {
	t.Parallel()
	old, next := newAuthority(t, "cards").cert, newAuthority(t, "next").cert
	for writes := range 4 {
		for name, do := range map[string]func(*plane){
			"another first trust": func(p *plane) { p.adoptAll(context.Background()) },
			"a newer bundle": func(p *plane) {
				_ = p.takeBundle(context.Background(), "cards",
					Bundle{
						TrustDomain: mustDomain("cards.example"), Sequence: 9, Roots: []*x509.Certificate{old, next},
					})
			},
			"a clock set back": func(p *plane) {
				p.Now = func() time.Time { return time.Now().Add(-time.Hour) }
				p.redateFutureRoots(context.Background())
			},
		} {
			t.Run(fmt.Sprintf("%s, dies after %d writes", name, writes), func(t *testing.T) {
				db, file := openState(t), cardsPeer(old)
				if err := db.SetPeerBundle(t.Context(), "cards", peerrules.Learned(file, []*x509.Certificate{old}), 1,
					0,
					time.Now()); err != nil {
					t.Fatal(err)
				}
				if err := db.SetPeerSuspended(t.Context(), "cards", true); err != nil {
					t.Fatal(err)
				}
				if name == "another first trust" {
					file = cardsPeer(next)
				}
				cfg := &snapshot.Config{Objects: snapshot.ObjectsOf(
					file,
				).WithOrigins(map[snapshot.Key]snapshot.Origin{
					{Kind: "MeshPeer", Name: "cards"}: {Source: snapshot.SourceFile, File: "peers.yaml", Line: 1},
				})}
				p := begin(t, db, cfg)
				p.state.writes = writes
				do(p)
				if got := begin(t, db, cfg).reason(); got != peerrules.Suspended {
					t.Errorf("after it died: %q", got)
				}
			})
		}
	}
}

// A resumption or a new peering that cannot be written opens nothing.
func TestResumingThatFailsOpensNothing(t *testing.T) {
	db, root := openState(t), newAuthority(t, "cards").cert
	made := cardsPeer(root)
	if err := db.EstablishPeer(t.Context(), made, peerrules.Learned(made, []*x509.Certificate{root}), 1,
		time.Now()); err != nil {
		t.Fatal(err)
	}
	p := begin(t, db, &snapshot.Config{})
	if err := p.Suspend(t.Context(), "cards"); err != nil {
		t.Fatal(err)
	}
	p.state.writes = 0
	if err := p.Resume(t.Context(), "cards"); !errors.Is(err, errDisk) {
		t.Errorf("answered %v", err)
	}
	if got := p.reason(); got != peerrules.Suspended {
		t.Errorf("%q", got)
	}
	p.state.writes = -1
	if err := p.Resume(t.Context(), "cards"); err != nil {
		t.Fatal(err)
	}
	if err := p.store.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := p.reason(); got != "live" {
		t.Errorf("resumed: %q", got)
	}
}

// A suspension or revocation that is stored is what the store says: another control plane that ends it ends it here.
func TestWhatIsEndedElsewhereIsEndedHere(t *testing.T) {
	t.Parallel()
	root := newAuthority(t, "cards").cert
	for name, act := range map[string]struct {
		begin, end func(*plane) error
		want       peerrules.Reason
	}{
		"a suspension": {
			func(p *plane) error { return p.Suspend(context.Background(), "cards") },
			func(p *plane) error { return p.Resume(context.Background(), "cards") }, peerrules.Suspended,
		},
		"a revocation": {
			func(p *plane) error { return p.Revoke(context.Background(), "cards") },
			func(p *plane) error {
				made := cardsPeer(root)
				return p.Store.EstablishPeer(context.Background(), made,
					peerrules.Learned(made, []*x509.Certificate{root}), 2, time.Now())
			}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, made := openState(t), cardsPeer(root)
			if err := db.EstablishPeer(t.Context(), made, peerrules.Learned(made, []*x509.Certificate{root}), 1,
				time.Now()); err != nil {
				t.Fatal(err)
			}
			here, there := begin(t, db, &snapshot.Config{}), begin(t, db, &snapshot.Config{})
			here.state.writes = 0
			if err := act.begin(here); err == nil {
				t.Fatal("it was stored")
			}
			reload := func(want peerrules.Reason) {
				t.Helper()
				for _, p := range []*plane{here, there} {
					if err := p.store.Reload(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if got := here.reason(); got != want {
					t.Errorf("here: %q, want %q", got, want)
				}
			}
			reload(act.want) // it is not stored yet, so that the store has no say
			here.state.writes = -1
			here.writeUnwritten(t.Context())
			reload(act.want)
			if err := act.end(there); err != nil {
				t.Fatal(err)
			}
			reload("live")
		})
	}
}

// Whoever asks again for the answer to an acceptance is not told that all is well once the peer is revoked.
func TestARevokedPeerIsNotWelcomedAgain(t *testing.T) {
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "retail")
	body := peeringBody(t, retail, tok)
	for i, want := range []int{http.StatusOK, http.StatusOK, http.StatusConflict} {
		if i == 2 {
			cards.must(cards.Revoke(t.Context(), "retail"))
		}
		if code, text := cards.post(cards.asInvited(retail, tok.InviteID), PathPeering,
			bytes.NewReader(body)); code != want {
			t.Errorf("time %d: %d %s, want %d", i+1, code, text, want)
		}
	}
}
