package federation

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestFloodOfRequestsIsBounded(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	codes := map[int]int{}
	for range 60 {
		w := httptest.NewRecorder()
		r, err := http.NewRequest(http.MethodGet, PathBundle, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.TLS = shown(t, cards.asPeer(retail, "retail"))
		cards.forPeer(cards.serveBundle)(w, r)
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
		if _, ok := cards.limits.enter("retail"); !ok {
			t.Fatal("less than its share")
		}
	}
	if code, text := cards.post(cards.asPeer(retail, "retail"), PathBundle, nil); code != http.StatusServiceUnavailable || !strings.Contains(text, "of this peer at once") {
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
	if code, text := cards.post(peer, PathBundle, nil); code != http.StatusServiceUnavailable || !strings.Contains(text, "try again") {
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
