package federation

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/waittest"
)

func TestFloodOfRequestsIsBounded(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	codes, peers := map[int]int{}, cards.peerHandler()
	for range 60 {
		w := httptest.NewRecorder()
		r, err := http.NewRequest(http.MethodGet, PathBundle, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.TLS = shown(t, cards.asPeer(retail, "retail"))
		peers.ServeHTTP(w, r)
		codes[w.Code]++
	}
	if codes[200] < 20 || codes[200] > 40 || codes[429] != 60-codes[200] {
		t.Errorf("answers by status: %v", codes)
	}
}

// shown is what a connection tells the server of a speaker.
func shown(t *testing.T, who speaker) *tls.ConnectionState {
	t.Helper()
	leaf, err := x509.ParseCertificate(who.control.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return &tls.ConnectionState{ServerName: who.sni, PeerCertificates: []*x509.Certificate{leaf}}
}

// One peer takes no more than its share of what is answered at a time.
func TestOnePeerLeavesRoomForOthers(t *testing.T) {
	cards, retail, n := pair(t)
	bank := newMesh(t, n, "bank", "192.0.2.3")
	join(t, cards, retail)
	tok := invite(t, cards, "bank")
	if _, err := bank.Accept(t.Context(), tok.Encode(), ""); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		conn, err := cards.dialAs(cards.asPeer(retail, "retail"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn,
			"POST /v1/catalogue HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "its share is taken", func() bool { return len(cards.limits.slots) == 8 })
	if code, text := cards.post(cards.asPeer(retail, "retail"), PathBundle,
		nil); code != http.StatusServiceUnavailable || !strings.Contains(text, "too many requests at once") {
		t.Errorf("one more: %d %s", code, text)
	}
	if code, text := cards.post(cards.asPeer(bank, "bank"), PathBundle, nil); code != http.StatusOK {
		t.Errorf("another peer: %d %s", code, text)
	}
}

// However many ask at once, so many are answered, and the others are told to come again.
func TestRequestsAtOnceAreBounded(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	peer := cards.asPeer(retail, "retail")
	for range 64 {
		cards.limits.slots <- struct{}{}
	}
	if code, text := cards.post(peer, PathBundle, nil); code != http.StatusServiceUnavailable ||
		!strings.Contains(text, "try again") {
		t.Errorf("one more: %d %s", code, text)
	}
	<-cards.limits.slots
	if code, text := cards.post(peer, PathBundle, nil); code != http.StatusOK {
		t.Errorf("with a place free: %d %s", code, text)
	}
	if code, text := cards.post(peer, PathBundle, nil); code != http.StatusOK {
		t.Errorf("the place was not given back: %d %s", code, text)
	}
}

// Whoever has seen the name of an open invitation, and begins to accept it without end, leaves room for peers.
func TestInvitationsLeaveRoomForPeers(t *testing.T) {
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "bank")
	for range 20 {
		conn, err := cards.dialAs(cards.asInvited(retail, tok.InviteID))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn,
			"POST /v1/peering HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "its places are taken", func() bool { return len(cards.limits.slots) == 8 })
	waittest.Quiet(200 * time.Millisecond)
	if taken := len(cards.limits.slots); taken != 8 {
		t.Errorf("an invitation takes %d of %d places, want 8", taken, cap(cards.limits.slots))
	}
}

// A flood of one kind of refusals does not keep another kind off the record.
func TestRefusalsOfOneKindHideNoOthers(t *testing.T) {
	cards, retail, _ := pair(t)
	for range 30 {
		cards.post(cards.asPeer(retail, "stranger"), PathBundle, nil)
	}
	// Nor do invented identities, reasons and invitations.
	tok := invite(t, cards, "bank")
	own := func(name string) tls.Certificate { return newMesh(t, cards.net, name, "192.0.2.9").control }
	for i := range 3 {
		cards.post(speaker{cards.gateway, own(fmt.Sprint("eve", i)), tok.InviteID + ".invite.fed.cards.example"},
			PathPeering, bytes.NewReader(peeringBody(t, retail, tok)))
	}
	for range 3 {
		cards.post(cards.asInvited(retail, newID()), PathPeering, strings.NewReader("{}"))
	}
	wrong := peeringBody(t, retail, Token{Name: tok.Name, Secret: newSecret(), Fingerprint: tok.Fingerprint})
	if code, text := cards.post(cards.asInvited(retail, tok.InviteID), PathPeering,
		bytes.NewReader(wrong)); code != http.StatusForbidden {
		t.Fatalf("%d %s", code, text)
	}
	events := cards.events(state.EventFilter{Action: "peer redeem"})
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprintf("%s | %s | %s | %d", e.From, e.Object, e.Detail, e.Count))
	}
	slices.Sort(got)
	want := []string{
		"127.0.0.1 |  | the request is not what it should be | 3",
		"127.0.0.1 | " + tok.InviteID + " | who asks is not the control plane of the mesh that it introduces | 3",
		"127.0.0.1 | " + tok.InviteID + " | wrong secret | 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("on record:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
