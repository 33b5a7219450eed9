package apps

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"isthmus.dev/isthmus/samples/websocket"
)

// maxCharges bounds what payments remembers; the oldest are forgotten first.
const maxCharges = 10_000

// Charge is one payment taken.
type Charge struct {
	ID       string    `json:"id"`
	Amount   int64     `json:"amount"`
	Token    string    `json:"token,omitempty"` // stands for the card, which is never kept
	Caller   string    `json:"caller,omitempty"`
	ServedBy string    `json:"servedBy"`
	Time     time.Time `json:"time"`
}

// Payments takes charges.
type Payments struct {
	http.Handler
	servedBy string
	tokens   string // host:port of the token vault, empty for none

	mu      sync.Mutex // guards charges and order
	charges map[string]Charge
	order   []string
}

// NewPayments builds the payments service. With a token vault it trades each card for a token before it does anything
// else.
func NewPayments(servedBy, tokens string) *Payments {
	p := &Payments{servedBy: servedBy, tokens: tokens, charges: map[string]Charge{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("POST /v1/charges", p.create)
	mux.HandleFunc("GET /v1/charges/{id}", p.get)
	mux.HandleFunc("DELETE /v1/charges/{id}", p.remove)
	mux.HandleFunc("GET /v1/charges/headers", p.headers)
	mux.HandleFunc("GET /v1/charges/watch", p.watch)
	mux.HandleFunc("GET /v1/charges/till", p.chargeSocket)
	mux.HandleFunc("GET /admin/refunds", p.refunds)
	p.Handler = tagged(servedBy, mux)
	return p
}

func (p *Payments) create(w http.ResponseWriter, r *http.Request) {
	var order struct {
		Amount int64  `json:"amount"`
		Card   string `json:"card"`
	}
	if err := read(r, &order); err != nil {
		refuse(w, http.StatusBadRequest, `send {"amount": cents, "card": "digits"}: `+err.Error())
		return
	}
	if order.Amount <= 0 {
		refuse(w, http.StatusBadRequest, "amount must be above 0 cents")
		return
	}
	c := p.charge(order.Amount, r)
	if order.Card != "" && p.tokens != "" {
		token, err := Tokenise(r.Context(), p.tokens, order.Card)
		if err != nil {
			refuse(w, http.StatusBadGateway, "trade the card for a token: "+err.Error())
			return
		}
		c.Token = token
	}
	p.keep(c)
	reply(w, http.StatusCreated, c)
}

func (p *Payments) charge(amount int64, r *http.Request) Charge {
	return Charge{
		ID: "ch_" + rand.Text()[:12], Amount: amount, ServedBy: p.servedBy,
		Caller: r.Header.Get("Isthmus-Caller"), Time: time.Now().UTC().Truncate(time.Millisecond),
	}
}

// chargeSocket is a WebSocket: each message is an amount in cents, and its answer the charge.
func (p *Payments) chargeSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r)
	if err != nil {
		return // the client has its answer
	}
	defer conn.Close()
	stop := context.AfterFunc(r.Context(), func() { conn.Close() })
	defer stop()
	for {
		said, err := conn.Receive()
		if err != nil {
			return // the client left
		}
		var answer any = map[string]string{"error": "say an amount in cents"}
		if amount, err := strconv.ParseInt(said, 10, 64); err == nil && amount > 0 {
			c := p.charge(amount, r)
			p.keep(c)
			answer = c
		}
		b, err := json.Marshal(answer)
		if err != nil || conn.Send(string(b)) != nil {
			return
		}
	}
}

func (p *Payments) keep(c Charge) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.order) == maxCharges {
		delete(p.charges, p.order[0])
		p.order = p.order[1:]
	}
	p.charges[c.ID] = c
	p.order = append(p.order, c.ID)
}

func (p *Payments) get(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	c, ok := p.charges[r.PathValue("id")]
	p.mu.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "no charge "+r.PathValue("id"))
		return
	}
	reply(w, http.StatusOK, c)
}

// remove is what nobody outside may do: the export does not list DELETE.
func (p *Payments) remove(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	delete(p.charges, r.PathValue("id"))
	p.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// headers shows which headers arrived, so that one sees what the boundary took away and what it added.
func (p *Payments) headers(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusOK, map[string]any{"servedBy": p.servedBy, "headers": headerLines(r)})
}

// watch writes the number of charges five times a second until one side goes away: a long-lived answer.
func (p *Payments) watch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		n := len(p.charges)
		p.mu.Unlock()
		if _, err := fmt.Fprintf(w, "%d charges\n", n); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// refunds is the service's inner surface, closed to every caller by policy.
func (p *Payments) refunds(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]any{"refunds": []string{}, "servedBy": p.servedBy})
}
