package apps

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/samples/websocket"
)

func TestCheckoutGoesThroughAllFour(t *testing.T) {
	vaultAddr := startVault(t)
	catalogue := httptest.NewServer(NewCatalogue("catalogue@retail"))
	payments := httptest.NewServer(NewPayments("payments@cards", vaultAddr))
	orders := httptest.NewServer(NewOrders("orders@retail"))
	shop := httptest.NewServer(NewStorefront("storefront@retail", payments.URL, catalogue.URL, orders.URL))
	for _, s := range []*httptest.Server{catalogue, payments, orders, shop} {
		t.Cleanup(s.Close)
	}
	status, body := post(t, shop.URL+"/checkout", `{"item":"tea","card":"4111111111111111"}`)
	if status != 201 {
		t.Fatalf("status %d: %s", status, body)
	}
	for _, want := range []string{`"amount": 450`, `"token": "tok_`, `"servedBy": "payments@cards"`, `"id": "or_1"`} {
		if !strings.Contains(body, want) {
			t.Errorf("receipt lacks %s:\n%s", want, body)
		}
	}
	if strings.Contains(body, "4111") {
		t.Error("the card number came back")
	}
}

func TestCheckoutNamesWhoRefused(t *testing.T) {
	catalogue := httptest.NewServer(NewCatalogue("catalogue"))
	t.Cleanup(catalogue.Close)
	shut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not an allowed caller", http.StatusForbidden)
	}))
	t.Cleanup(shut.Close)
	shop := httptest.NewServer(NewStorefront("s", shut.URL, catalogue.URL, shut.URL))
	t.Cleanup(shop.Close)
	status, body := post(t, shop.URL+"/checkout", `{"item":"tea","card":"4111111111111111"}`)
	if status != 502 || !strings.Contains(body, "payments: ") ||
		!strings.Contains(body, "403 Forbidden: not an allowed caller") {
		t.Fatalf("got %d %s", status, body)
	}
}

func TestPaymentsRefusesBadCharges(t *testing.T) {
	srv := httptest.NewServer(NewPayments("p", ""))
	t.Cleanup(srv.Close)
	for _, body := range []string{``, `{}`, `{"amount":-1}`, `{"amount":1,"pin":"1"}`, `[`} {
		if status, _ := post(t, srv.URL+"/v1/charges", body); status != 400 {
			t.Errorf("%q: status %d, want 400", body, status)
		}
	}
}

func TestChargesOverAWebSocket(t *testing.T) {
	srv := httptest.NewServer(NewPayments("payments@cards", ""))
	t.Cleanup(srv.Close)
	c, header, err := websocket.Dial(t.Context(), srv.URL+"/v1/charges/till")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := header.Get("Served-By"); got != "payments@cards" {
		t.Errorf("served by %q", got)
	}
	for said, want := range map[string]string{"450": `"amount":450`, "-1": "say an amount", "tea": "say an amount"} {
		if err := c.Send(said); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Receive(); err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %q, %v, want %s", said, got, err, want)
		}
	}
}

func TestVaultLines(t *testing.T) {
	v := vault{key: []byte("k")}
	for _, c := range []struct{ line, want string }{
		{"TOKENISE 4111111111111111", "OK tok_ea8f1cf8ad2a108e"},
		{"TOKENISE 4111", "ERR a card number has 12 to 19 digits"},
		{"TOKENISE 41111111x1111111", "ERR a card number has 12 to 19 digits"},
		{"GET / HTTP/1.1", "ERR say TOKENISE <card number> or QUIT"},
		{"QUIT", "BYE"},
	} {
		if got := v.answer(c.line); got != c.want {
			t.Errorf("%q: %q, want %q", c.line, got, c.want)
		}
	}
}

func TestMainNamesThePrograms(t *testing.T) {
	for _, args := range [][]string{nil, {"bakery"}} {
		err := Main(t.Context(), args, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "payments, tokens, storefront, catalogue, orders or version") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func startVault(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- newVault().serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the vault did not stop")
		}
	})
	return ln.Addr().String()
}

func post(t *testing.T, url, body string) (int, string) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
