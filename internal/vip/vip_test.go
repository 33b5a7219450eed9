package vip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func hosts(namespace string, from, to int) []Host {
	var out []Host
	for i := from; i < to; i++ {
		out = append(out, Host{Name: fmt.Sprintf("h%d.%s.svc.cluster.local", i, namespace), Namespace: namespace})
	}
	return out
}

// step is what a store does with a choice, and checks what must hold after each.
func step(t *testing.T, old *Table, wanted []Host, now time.Time) (*Table, []Host) {
	t.Helper()
	c, left := old.Choose(wanted, now)
	next := old.With(c)
	without := map[string]bool{}
	for _, h := range left {
		without[h.Name] = true
	}
	at := map[netip.Addr]string{}
	for host, r := range next.rows {
		if other, taken := at[r.Addr]; taken {
			t.Fatalf("%s and %s share %s", host, other, r.Addr)
		}
		at[r.Addr] = host
		if !Range.Contains(r.Addr) || r.Addr.Less(netip.MustParseAddr("240.240.1.0")) ||
			r.Addr == netip.MustParseAddr("240.240.255.255") {
			t.Fatalf("%s is at %s, which no host may have", host, r.Addr)
		}
	}
	for _, h := range wanted {
		if _, has := next.InUse()[h.Name]; has == without[h.Name] {
			t.Fatalf("%s: has an address: %v, was left without one: %v", h.Name, has, without[h.Name])
		}
	}
	if again, _ := next.Choose(wanted, now); !again.Empty() {
		t.Fatalf("the same hosts again are a change: %d dropped, %d put", len(again.Drop), len(again.Put))
	}
	if fromRows := TableOf(rowsOf(next)); len(fromRows.rows) != len(next.rows) {
		t.Fatal("a table that is read again differs")
	}
	return next, left
}

func rowsOf(t *Table) (rows []Row) {
	for _, r := range t.rows {
		rows = append(rows, r)
	}
	return rows
}

func TestAHostKeepsItsAddress(t *testing.T) {
	table, _ := step(t, TableOf(nil), hosts("a", 0, 3), noon)
	first := table.InUse()["h0.a.svc.cluster.local"]
	table, _ = step(t, table, hosts("a", 1, 4), noon)
	if _, has := table.InUse()["h0.a.svc.cluster.local"]; has {
		t.Error("a host that is gone is in use")
	}
	table, _ = step(t, table, hosts("a", 0, 4), noon.Add(24*time.Hour))
	if got := table.InUse()["h0.a.svc.cluster.local"]; got != first {
		t.Errorf("back again it has %s, not %s", got, first)
	}
	anew, _ := step(t, TableOf(nil), hosts("a", 0, 1), noon)
	if got := anew.InUse()["h0.a.svc.cluster.local"]; got != first {
		t.Errorf("begun anew it has %s, not %s", got, first)
	}
}

// Two files of 30,000 names, written and removed one after the other, leave room for what follows.
func TestNamesWrittenAndRemovedUseNothingUp(t *testing.T) {
	table := TableOf(nil)
	now := noon
	for round := range 4 {
		var many []Host
		for ns := range 5 {
			many = append(many, hosts(fmt.Sprintf("r%dn%d", round, ns), 0, 6000)...)
		}
		var left []Host
		if table, left = step(t, table, many, now); len(left) > 0 {
			t.Fatalf("round %d: %d of %d have no address", round, len(left), len(many))
		}
		now = now.Add(ReuseDelay)
		table, _ = step(t, table, nil, now)
		now = now.Add(ReuseDelay)
	}
	if _, left := step(t, table, hosts("new", 0, 1), now); len(left) > 0 {
		t.Error("no address is left")
	}
}

func TestANamespaceIsBounded(t *testing.T) {
	table, left := step(t, TableOf(nil), append(hosts("greedy", 0, 66_000), hosts("other", 0, 10)...), noon)
	if len(left) != 66_000-8192 || left[0].Namespace != "greedy" || len(table.InUse()) != 8192+10 {
		t.Fatalf("%d left without, %d with an address", len(left), len(table.InUse()))
	}
	kept := table.InUse()["h0.greedy.svc.cluster.local"]
	table, left = step(t, table, append(hosts("aaa", 0, 10), hosts("greedy", 0, 66_000)...), noon)
	if len(left) != 66_000-8192 || table.InUse()["h0.greedy.svc.cluster.local"] != kept {
		t.Error("who has an address must keep it, whoever comes")
	}
	// Names that change take the namespace's own addresses, not others'.
	before := table
	if table, left = step(t, table, append(hosts("aaa", 0, 10), hosts("greedy", 70_000, 80_000)...),
		noon); len(left) != 10_000-8192 {
		t.Fatalf("%d left without", len(left))
	}
	old := map[netip.Addr]bool{}
	for _, r := range before.rows {
		old[r.Addr] = r.Namespace == "greedy"
	}
	for _, r := range table.rows {
		if r.Namespace == "greedy" && !old[r.Addr] {
			t.Fatalf("%s took %s, which was not its namespace's", r.Name, r.Addr)
		}
	}
}

func TestAUsedUpRange(t *testing.T) {
	var all []Host
	for ns := range 8 {
		all = append(all, hosts(fmt.Sprintf("n%d", ns), 0, 8192)...)
	}
	table, left := step(t, TableOf(nil), all, noon)
	if len(left) != 8*8192-65_279 {
		t.Fatalf("%d left without", len(left))
	}
	all = all[8192:] // n0's are gone
	asked := append(hosts("new", 0, 1), all...)
	if _, left = step(t, table, asked, noon); len(left) == 0 {
		t.Error("an address of another namespace was given away at once")
	}
	later, _ := step(t, table, all, noon)
	if _, left = step(t, later, asked, noon.Add(2*time.Minute)); len(left) != 0 {
		t.Errorf("%d are left without, though addresses have rested", len(left))
	}
}

func TestRowsThatAreNoGoodAreLeftOut(t *testing.T) {
	at := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	table := TableOf([]Row{
		{Host: Host{"a", "n"}, Addr: at("240.240.1.1")},
		{Host: Host{"b", "n"}, Addr: at("240.240.1.1")},
		{Host: Host{"c", "n"}, Addr: at("10.0.0.1")},
		{Host: Host{"d", "n"}, Addr: Refusal},
		{Host: Host{"e", "n"}, Addr: at("100::f0f0:101")},
		{Host: Host{"f", "n"}},
	})
	if len(table.InUse()) != 1 {
		t.Errorf("in use: %v", table.InUse())
	}
}
