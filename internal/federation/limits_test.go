package federation

import (
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
		r.Header.Set(HeaderPeer, "retail")
		cards.forPeer(usualPace, "peer", cards.serveBundle)(w, r)
		codes[w.Code]++
	}
	if codes[200] < 20 || codes[200] > 40 || codes[429] != 60-codes[200] {
		t.Errorf("answers by status: %v", codes)
	}
}

// However many ask at once, so many are answered, and the others are told to come again.
func TestRequestsAtOnceAreBounded(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	peer := http.Header{HeaderPeer: {"retail"}}
	for range 64 {
		cards.limits.slots <- struct{}{}
	}
	if code, text := cards.post(cards.asGateway(), PathBundle, peer, nil); code != http.StatusServiceUnavailable || !strings.Contains(text, "try again") {
		t.Errorf("one more: %d %s", code, text)
	}
	<-cards.limits.slots
	if code, text := cards.post(cards.asGateway(), PathBundle, peer, nil); code != http.StatusOK {
		t.Errorf("with a place free: %d %s", code, text)
	}
	if code, text := cards.post(cards.asGateway(), PathBundle, peer, nil); code != http.StatusOK {
		t.Errorf("the place was not given back: %d %s", code, text)
	}
}
