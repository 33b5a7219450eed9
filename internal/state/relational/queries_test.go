package relational

import (
	"testing"
	"testing/fstest"
)

// A statement cannot change what nobody hears of.
func TestUnknownTopic(t *testing.T) {
	for header, want := range map[string]string{
		"-- write: end-invites (changes invitations)": "",
		"-- write: end-invites (changes invitation)":  `statement end-invites changes "invitation", which is no topic`,
	} {
		_, err := queries(fstest.MapFS{"a.sql": {Data: []byte(header + "\nDELETE FROM invites;\n")}})
		if got := text(err); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
