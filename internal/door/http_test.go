package door

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Requests over HTTP pass the same list as calls: they are identified, authorized, judged, limited, bounded and
// recorded, in this order.
func TestRequestsPassTheSameSteps(t *testing.T) {
	record := &written{}
	refusals := &Refusals{Events: record}
	d := New(Config{
		Methods: map[string]Method{"/x/Tell": {
			Who: Peer | Workload, Only: func(c Caller) bool { return c.Name != "other" }, Deny: "it is for peers",
			Bytes: 4,
			Rate:  0.001, Burst: 2, Action: "tell",
		}},
		Judge: func(_ context.Context, c Caller) error {
			if c.Certificate.Generation == "old" {
				return status.Error(codes.PermissionDenied, "it was revoked")
			}
			return nil
		},
		Events: record, Refusals: refusals, Log: slog.New(slog.DiscardHandler),
	})
	var caller Caller
	var unknown error
	said := ""
	h := HTTP{
		Door:     d,
		Identify: func(*http.Request) (Caller, error) { return caller, unknown },
		Object:   func(*http.Request) string { return "name" },
		Refuse: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, status.Convert(err).Message(), 400+int(status.Code(err)))
		},
	}
	tell := h.Handle("/x/Tell", func(w http.ResponseWriter, r *http.Request, c Caller) error {
		text, err := io.ReadAll(r.Body)
		said = c.Name + ": " + string(text)
		return err
	})
	from := netip.MustParseAddr("192.0.2.1")
	peer, other := Caller{Kind: Peer, Name: "retail", Addr: from}, Caller{Kind: Peer, Name: "other", Addr: from}
	agent := Caller{Kind: Node, Name: "n", Addr: from}
	stolen := Caller{Kind: Workload, Name: "a/b", Addr: from, Certificate: &Certificate{Generation: "old"}}
	for _, step := range []struct {
		what    string
		h       http.Handler
		caller  Caller
		unknown error
		body    string
		want    codes.Code
		says    string
	}{
		{"no such method", h.Handle("/x/Other", nil), peer, nil, "", codes.Unimplemented, "no method"},
		{
			"nobody", tell,
			Caller{Kind: Stranger, Addr: from},
			status.Error(codes.PermissionDenied, "no such peer"), "",
			codes.PermissionDenied, "no such peer",
		},
		{"a stranger", tell, Caller{Kind: Stranger, Addr: from}, nil, "", codes.Unauthenticated, "certificate"},
		{"an agent", tell, agent, nil, "", codes.PermissionDenied, "it is for peers"},
		{"another peer", tell, other, nil, "", codes.PermissionDenied, "it is for peers"},
		{"a revoked one", tell, stolen, nil, "", codes.PermissionDenied, "revoked"},
		{"a peer", tell, peer, nil, "abc", codes.OK, ""},
		{"a long message", tell, peer, nil, "abcde", codes.Unknown, "too large"},
		{"too often", tell, peer, nil, "", codes.ResourceExhausted, "a second"},
	} {
		caller, unknown = step.caller, step.unknown
		w := httptest.NewRecorder()
		step.h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(step.body)))
		got := codes.OK
		if w.Code != http.StatusOK {
			got = codes.Code(w.Code - 400)
		}
		if got != step.want || !strings.Contains(w.Body.String(), step.says) {
			t.Errorf("%s: %s %q", step.what, got, w.Body.String())
		}
	}
	if said != "retail: abcd" {
		t.Errorf("the method heard %q", said)
	}
	if err := refusals.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	on := map[string]bool{}
	for _, e := range record.all {
		on[e.Actor+", "+e.Action+" "+e.Object+": "+e.Detail] = true
	}
	for _, want := range []string{
		"peer retail, call /x/Other: there is no method \"/x/Other\"", "stranger, tell name: no such peer",
		"node n, tell name: node n may not do this: it is for peers", "workload a/b, tell name: it was revoked",
		"peer retail, tell name: more than 0.001 calls a second: try again later",
	} {
		if !on[want] {
			t.Errorf("not on record: %s", want)
		}
	}
	if len(on) != 7 {
		t.Errorf("%d refusals on record: %v", len(on), on)
	}
}

// Calls of methods that share count together, those of all callers where a method says so, and want of room is told
// apart from want of right.
func TestSharesCountTogether(t *testing.T) {
	d := New(Config{})
	call := func(name, caller string, m Method) *call {
		return &call{name: name, Method: m, ctx: t.Context(), caller: Caller{Kind: Peer, Name: caller}}
	}
	shared := Method{Share: "peering", AtOnce: 1}
	first := call("a", "retail", shared)
	if err := d.limit(first); err != nil {
		t.Fatal(err)
	}
	err := d.limit(call("b", "retail", shared))
	if !errors.As(err, new(Busy)) || status.Code(err) != codes.ResourceExhausted {
		t.Errorf("another method of the share: %v", err)
	}
	if err := d.limit(call("b", "bank", shared)); err != nil {
		t.Errorf("another caller: %v", err)
	}
	d.limits.leave(first)
	if err := d.limit(call("b", "retail", shared)); err != nil {
		t.Errorf("once the first has left: %v", err)
	}
	together := Method{Together: true, Rate: 0.001, Burst: 1}
	if err := d.limit(call("c", "retail", together)); err != nil {
		t.Fatal(err)
	}
	err = d.limit(call("c", "bank", together))
	if errors.As(err, new(Busy)) || status.Code(err) != codes.ResourceExhausted {
		t.Errorf("somebody else where all count together: %v", err)
	}
}
