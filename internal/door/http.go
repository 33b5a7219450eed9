package door

import (
	"net/http"
)

// HTTP passes requests through a Door, with the same steps as gRPC calls.
type HTTP struct {
	Door *Door
	// Identify returns the caller of a request. With an error it returns the caller under which to record the refusal.
	Identify func(*http.Request) (Caller, error)
	// Object returns what to record with a refusal, beside the method. Default: nothing.
	Object func(*http.Request) string
	// Refuse answers a request that was refused or whose method failed.
	Refuse func(http.ResponseWriter, *http.Request, error)
}

// Handle serves the method with the given full name.
func (h HTTP) Handle(name string, serve func(http.ResponseWriter, *http.Request, Caller) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.serve(w, r, name, serve); err != nil {
			h.Refuse(w, r, err)
		}
	})
}

func (h HTTP) serve(
	w http.ResponseWriter, r *http.Request, name string, serve func(http.ResponseWriter, *http.Request, Caller) error,
) error {
	c := &call{name: name, ctx: r.Context(), notes: &notes{}, who: func() (Caller, error) { return h.Identify(r) }}
	if h.Object != nil {
		c.object = h.Object(r)
	}
	if err := h.Door.pass(c); err != nil {
		return err
	}
	defer h.Door.limits.leave(c)
	r.Body = http.MaxBytesReader(w, r.Body, int64(c.Bytes))
	err := h.Door.begin(c.ctx, c, nil)
	if err == nil {
		err = serve(w, r.WithContext(c.ctx), c.caller)
	}
	return h.Door.end(c.ctx, c, err)
}
