// Package apps holds the small programs of the demo: a card-data mesh (payments, tokens) and a shop (storefront,
// catalogue, orders). They know nothing of the mesh: they speak plain HTTP and TCP under plain names.
package apps

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Version of the programs, shown by "isthmus-samples version".
const Version = "1.0"

// settings are the flags that every program takes; each uses what concerns it.
type settings struct {
	listen, servedBy                    string
	tokens, payments, catalogue, orders string
}

// programs by name.
var programs = map[string]func(context.Context, settings) error{
	"payments": func(ctx context.Context, s settings) error {
		return serveHTTP(ctx, s.listen, NewPayments(s.servedBy, s.tokens))
	},
	"tokens": func(ctx context.Context, s settings) error { return serveTokens(ctx, s.listen) },
	"catalogue": func(ctx context.Context,
		s settings,
	) error {
		return serveHTTP(ctx, s.listen, NewCatalogue(s.servedBy))
	},
	"orders": func(ctx context.Context,
		s settings,
	) error {
		return serveHTTP(ctx, s.listen, NewOrders(s.servedBy))
	},
	"storefront": runStorefront,
}

// Main runs the program that args name until ctx ends.
func Main(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("name a program: payments, tokens, storefront, catalogue, orders or version")
	}
	if args[0] == "version" {
		_, err := fmt.Fprintln(out, "isthmus-samples", Version)
		return err
	}
	run, ok := programs[args[0]]
	if !ok {
		return fmt.Errorf("no program %q: use payments, tokens, storefront, catalogue, orders or version", args[0])
	}
	s, err := parse(args[0], args[1:])
	if err != nil {
		return err
	}
	if err := run(ctx, s); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return nil
}

func parse(program string, args []string) (settings, error) {
	var s settings
	f := flag.NewFlagSet(program, flag.ContinueOnError)
	f.StringVar(&s.listen, "listen", ":8080", "address to listen on")
	f.StringVar(&s.servedBy, "served-by", program, "name given in the served-by header")
	f.StringVar(&s.tokens, "tokens", "", "payments: host:port of the token vault; empty keeps no card")
	f.StringVar(&s.payments, "payments", "http://payments.default", "storefront: where payments is")
	f.StringVar(&s.catalogue, "catalogue", "http://catalogue.default", "storefront: where the catalogue is")
	f.StringVar(&s.orders, "orders", "http://orders.default", "storefront: where orders are kept")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return s, nil
}

// serveHTTP serves until ctx ends, then lets requests under way finish for a moment.
func serveHTTP(ctx context.Context, listen string, h http.Handler) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", listen, err)
	}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(end) != nil {
			srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", listen, err)
	}
	return nil
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(body) // the client went away: nobody is left to tell
}

func refuse(w http.ResponseWriter, status int, why string) {
	reply(w, status, map[string]string{"error": why})
}

// read decodes a small JSON body strictly.
func read(r *http.Request, into any) error {
	dec := json.NewDecoder(io.LimitReader(r.Body, 64<<10))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// tagged adds what every answer of a program carries.
func tagged(servedBy string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Served-By", servedBy)
		h.ServeHTTP(w, r)
	})
}

func healthz(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }

// headerLines are the request's headers as "name: value", sorted.
func headerLines(r *http.Request) []string {
	lines := []string{"host: " + r.Host}
	for name, values := range r.Header {
		for _, v := range values {
			lines = append(lines, strings.ToLower(name)+": "+v)
		}
	}
	slices.Sort(lines)
	return lines
}
