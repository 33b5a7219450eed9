package apps

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
)

// Item is one thing that the shop sells.
type Item struct {
	Name  string `json:"name"`
	Price int64  `json:"price"` // cents
}

// NewCatalogue builds the catalogue: what there is and what it costs.
func NewCatalogue(servedBy string) http.Handler {
	items := map[string]Item{
		"tea":   {"tea", 450},
		"mug":   {"mug", 1200},
		"scarf": {"scarf", 2900},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("GET /items", func(w http.ResponseWriter, _ *http.Request) {
		all := make([]Item, 0, len(items))
		for _, name := range slices.Sorted(maps.Keys(items)) {
			all = append(all, items[name])
		}
		reply(w, http.StatusOK, all)
	})
	mux.HandleFunc("GET /items/{name}", func(w http.ResponseWriter, r *http.Request) {
		item, ok := items[r.PathValue("name")]
		if !ok {
			refuse(w, http.StatusNotFound, "no item "+r.PathValue("name"))
			return
		}
		reply(w, http.StatusOK, item)
	})
	return tagged(servedBy, mux)
}

// Order is one sale.
type Order struct {
	ID     string `json:"id"`
	Item   string `json:"item"`
	Charge string `json:"charge"`
}

// NewOrders builds the order book.
func NewOrders(servedBy string) http.Handler {
	book := &orders{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("POST /orders", book.add)
	mux.HandleFunc("GET /orders", book.list)
	return tagged(servedBy, mux)
}

// maxOrders bounds what the order book remembers.
const maxOrders = 10_000

type orders struct {
	mu   sync.Mutex // guards made and last
	made int
	last []Order
}

func (o *orders) add(w http.ResponseWriter, r *http.Request) {
	var order Order
	if err := read(r, &order); err != nil || order.Item == "" {
		refuse(w, http.StatusBadRequest, `send {"item": name, "charge": id}`)
		return
	}
	o.mu.Lock()
	o.made++
	order.ID = fmt.Sprintf("or_%d", o.made)
	o.last = append(o.last, order)
	if len(o.last) > maxOrders {
		o.last = o.last[1:]
	}
	o.mu.Unlock()
	reply(w, http.StatusCreated, order)
}

func (o *orders) list(w http.ResponseWriter, _ *http.Request) {
	o.mu.Lock()
	all := slices.Clone(o.last)
	o.mu.Unlock()
	reply(w, http.StatusOK, all)
}
