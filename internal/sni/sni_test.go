package sni_test

import (
	"testing"

	"isthmus.dev/isthmus/internal/sni"
)

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		sni.Export("payments", "default", "retail", "cards.example"): "payments.default.retail.fed.cards.example",
		sni.Control("retail", "cards.example"):                       "control.retail.fed.cards.example",
		sni.Invite("a1b2", "cards.example"):                          "a1b2.invite.fed.cards.example",
		sni.Probe("retail", "cards.example"):                         "probe.retail.fed.cards.example",
	} {
		if got != want {
			t.Errorf("made %q, want %q", got, want)
		}
	}
}

// A gateway hands a connection on by what ControlOf and InviteOf read from a name that a stranger wrote.
func TestNamesAreReadStrictly(t *testing.T) {
	type read func(name, domain string) (string, bool)
	for _, tc := range []struct {
		what string
		read read
		name string
		want string // "" where the name is refused
	}{
		{"control", sni.ControlOf, "control.retail.fed.cards.example", "retail"},
		{"control of another domain", sni.ControlOf, "control.retail.fed.bank.example", ""},
		{"control without a consumer", sni.ControlOf, "control..fed.cards.example", ""},
		{"control with two labels", sni.ControlOf, "control.a.b.fed.cards.example", ""},
		{"control, prefix alone", sni.ControlOf, "control.fed.cards.example", ""},
		{"a domain that only ends alike", sni.ControlOf, "control.retail.fed.notcards.example", ""},
		{"an export is no control", sni.ControlOf, "payments.default.retail.fed.cards.example", ""},
		{"nothing", sni.ControlOf, "", ""},
		{"invite", sni.InviteOf, "a1b2.invite.fed.cards.example", "a1b2"},
		{"invite of another domain", sni.InviteOf, "a1b2.invite.fed.bank.example", ""},
		{"invite without an id", sni.InviteOf, ".invite.fed.cards.example", ""},
		{"invite with two labels", sni.InviteOf, "a.b.invite.fed.cards.example", ""},
	} {
		t.Run(tc.what, func(t *testing.T) {
			got, ok := tc.read(tc.name, "cards.example")
			if ok != (tc.want != "") || ok && got != tc.want {
				t.Errorf("read %q, %v from %q; want %q", got, ok, tc.name, tc.want)
			}
		})
	}
}
