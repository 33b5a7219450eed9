package apps

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Storefront sells: it looks an item up in the catalogue, charges the card at payments and books the order.
type Storefront struct {
	http.Handler
	client                      *http.Client
	payments, catalogue, orders string // base URLs
}

// NewStorefront builds the shop's front; it finds the others under the given base URLs.
func NewStorefront(servedBy, payments, catalogue, orders string) *Storefront {
	s := &Storefront{
		client: &http.Client{Timeout: 5 * time.Second}, payments: payments, catalogue: catalogue, orders: orders,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("GET /{$}", s.items)
	mux.HandleFunc("POST /checkout", s.checkout)
	s.Handler = tagged(servedBy, mux)
	return s
}

func runStorefront(ctx context.Context, s settings) error {
	return serveHTTP(ctx, s.listen, NewStorefront(s.servedBy, s.payments, s.catalogue, s.orders))
}

func (s *Storefront) items(w http.ResponseWriter, r *http.Request) {
	var items []Item
	if err := s.call(r.Context(), http.MethodGet, s.catalogue+"/items", nil, &items); err != nil {
		refuse(w, http.StatusBadGateway, "catalogue: "+err.Error())
		return
	}
	reply(w, http.StatusOK, items)
}

// Receipt is what a customer gets.
type Receipt struct {
	Item   Item   `json:"item"`
	Charge Charge `json:"charge"`
	Order  Order  `json:"order"`
}

func (s *Storefront) checkout(w http.ResponseWriter, r *http.Request) {
	var cart struct {
		Item string `json:"item"`
		Card string `json:"card"`
	}
	if err := read(r, &cart); err != nil || cart.Item == "" || strings.ContainsAny(cart.Item, "/?#%") {
		refuse(w, http.StatusBadRequest, `send {"item": name, "card": "digits"}`)
		return
	}
	var got Receipt
	steps := []struct {
		who, method, url string
		body             func() any
		into             any
	}{
		{"catalogue", http.MethodGet, s.catalogue + "/items/" + cart.Item, nil, &got.Item},
		{"payments", http.MethodPost, s.payments + "/v1/charges", func() any {
			return map[string]any{"amount": got.Item.Price, "card": cart.Card}
		}, &got.Charge},
		{"orders", http.MethodPost, s.orders + "/orders", func() any {
			return Order{Item: got.Item.Name, Charge: got.Charge.ID}
		}, &got.Order},
	}
	for _, step := range steps {
		if err := s.call(r.Context(), step.method, step.url, step.body, step.into); err != nil {
			refuse(w, http.StatusBadGateway, step.who+": "+err.Error())
			return
		}
	}
	reply(w, http.StatusCreated, got)
}

// call makes one JSON call; any answer but 2xx is an error that carries the answer's first line.
func (s *Storefront) call(ctx context.Context, method, url string, body func() any, into any) error {
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body())
		if err != nil {
			return err
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, sent)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", url, err)
	}
	if resp.StatusCode/100 != 2 {
		line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
		return fmt.Errorf("%s answered %s: %s", url, resp.Status, line)
	}
	return json.Unmarshal(b, into)
}
