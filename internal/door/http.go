package door

import (
	"net/http"

	"isthmus.dev/isthmus/internal/state"
)

// Handler lets HTTP requests through the door: those whose caller is known. Refusals by next are recorded.
func (d *Door) Handler(action string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := From(r.Context())
		if !ok {
			http.Error(w, "the connection did not come through the door", http.StatusInternalServerError)
			return
		}
		seen := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(seen, r)
		if seen.code == http.StatusUnauthorized || seen.code == http.StatusForbidden {
			e := state.Event{Actor: c.Actor(), From: c.From(), Action: action, Detail: r.Method + " " + r.URL.Path}
			if c.Kind == Stranger {
				e.From = c.Net().String()
			}
			d.refusals.Add(e)
		}
	})
}

// statusWriter remembers how a request was answered.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
