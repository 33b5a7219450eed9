package agents

import (
	"context"
	"net/netip"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/store"
)

// said is a store that has heard of one node.
type said struct {
	Store
	node snapshot.Node
}

func (s said) Said(string) (snapshot.Node, []snapshot.Workload, bool) { return s.node, nil, true }

// superseded is a store in which a newer stream has spoken.
type superseded struct{ Store }

func (superseded) Register(context.Context, uint64, snapshot.Node, []snapshot.Workload, func() error) error {
	return store.ErrSuperseded
}

// An address that another host could not use is none, and the one of before stays.
func TestAddressesThatAreNoUseAreNotLearned(t *testing.T) {
	t.Parallel()
	a := &Agents{Config: Config{Store: said{}}}
	at := func(address string) string {
		return a.reached(door.Caller{At: netip.MustParseAddr(address)}, "edge").String()
	}
	for address, want := range map[string]string{
		"10.0.0.4": "10.0.0.4", "fd00::4": "fd00::4", "127.0.0.1": "127.0.0.1", "fe80::1%eth0": "invalid IP",
		"0.0.0.0": "invalid IP",
	} {
		if got := at(address); got != want {
			t.Errorf("%s: learned %s instead of %s", address, got, want)
		}
	}
	a.Store = said{node: snapshot.Node{Name: "edge", Reached: netip.MustParseAddr("10.0.0.4")}}
	if got := at("fe80::1%eth0"); got != "10.0.0.4" {
		t.Errorf("the address of before is lost: %s", got)
	}
}

// An older stream of a node neither takes over a newer one nor registers anything.
func TestOlderStreamsTakeNothingOver(t *testing.T) {
	t.Parallel()
	a := &Agents{Config: Config{Store: superseded{}}, known: map[string]*agent{}}
	cut := false
	if err := a.join(&agent{name: "n", stream: 2, cut: func(error) { cut = true }}); err != nil {
		t.Fatal(err)
	}
	if err := a.join(&agent{name: "n", stream: 1, cut: func(error) {}}); status.Code(err) != codes.Aborted || cut {
		t.Errorf("an old stream joins: %v, the new one was cut: %v", err, cut)
	}
	if err := a.register(t.Context(), 1, snapshot.Node{Name: "n"}, nil, nil); status.Code(err) != codes.Aborted {
		t.Errorf("an old stream registers: %v", err)
	}
	if err := a.join(&agent{name: "n", stream: 3, cut: func(error) {}}); err != nil || !cut {
		t.Errorf("the newest stream joins: %v, the one before was cut: %v", err, cut)
	}
}
