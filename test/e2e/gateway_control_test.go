//go:build e2e

package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
)

// testControl speaks to the control plane from behind a peer's gateway: as that peer's control plane, and as everybody
// else whom the gateway would carry.
func (g *gateway) testControl(t *testing.T) {
	north, south := g.peers["north"], g.peers["south"]
	const controlOf = "spiffe://%s.example/isthmus/control"
	c := north.client("api")
	c.sni, c.asserts, c.control = "control.north.fed.home.example", nil,
		north.ca.leaf(t, fmt.Sprintf(controlOf, "north"))
	push := func(c gwCaller, sequence int, name string, headers ...string) gwAnswer {
		body := fmt.Sprintf(`{"sequence":%d,"services":[{"name":%q,"namespace":"default","port":80,"protocol":"HTTP"}]}`, sequence, name)
		a, err := g.send(c,
			fmt.Sprintf("POST /v1/catalogue HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s",
				c.sni, len(body), strings.Join(append(headers, ""), "\r\n"), body))
		must(t, err)
		return a
	}
	offers := func(peer, name string) {
		t.Helper()
		eventually(t, 5*time.Second, func() error { // as soon as it is published
			r, err := adminapi.Call[adminapi.PeerRequest, adminapi.CatalogueResponse](t.Context(), g.admin, "Catalogue",
				&adminapi.PeerRequest{})
			if err == nil && (len(r.Entries) != 1 || r.Entries[0].Peer != peer || r.Entries[0].Name != name) {
				err = fmt.Errorf("offered is %+v, want %s of %s", r.Entries, name, peer)
			}
			return err
		})
	}
	now := int(time.Now().UnixMicro())
	if a := push(c, now, "bait", "isthmus-peer: south", "Isthmus-Peer: east"); a.Code != http.StatusNoContent {
		t.Errorf("a catalogue in another's name: %d %s", a.Code, a.Body)
	}
	offers("north", "bait")
	if a := push(c, now, "bait"); a.Code != http.StatusConflict {
		t.Errorf("the same catalogue again: %d %s", a.Code, a.Body)
	}
	// The gateway of north, stolen, has every certificate that it may have, and can make none of its control plane.
	for name, cert := range map[string]*tls.Certificate{
		"its own":                        north.own,
		"a workload's":                   north.ca.leaf(t, "spiffe://north.example/ns/default/sa/web"),
		"a node's":                       north.ca.leaf(t, "spiffe://north.example/isthmus/node/edge"),
		"another mesh's control plane's": south.ca.leaf(t, fmt.Sprintf(controlOf, "south")),
		"one of another root":            south.ca.leaf(t, fmt.Sprintf(controlOf, "north")),
	} {
		stolen := c
		stolen.control = cert
		for _, peer := range []string{"north", "east"} { // in its own mesh's name, and in another's
			stolen.controlSNI = "control." + peer + ".fed.home.example"
			if a := push(stolen, now+1, "poison"); a.Code != http.StatusForbidden {
				t.Errorf("%s, as %s: %d %s", name, peer, a.Code, a.Body)
			}
		}
	}
	// A number from the end of time is refused, and blocks nothing.
	if a := push(c, 1<<62, "jam"); a.Code != http.StatusBadRequest {
		t.Errorf("sequence 2^62: %d %s", a.Code, a.Body)
	}
	if a := push(c, int(time.Now().UnixMicro()), "bait2"); a.Code != http.StatusNoContent {
		t.Errorf("after it: %d %s", a.Code, a.Body)
	}
	offers("north", "bait2")
	a, err := g.ask(c, "GET", "/v1/bundle")
	must(t, err)
	for name, v := range a.Header {
		if err := holds(name+": "+v[0], ours...); err != nil {
			t.Error(err)
		}
	}
	for _, request := range []string{
		"GET /", "GET /v1/catalogue", "PUT /v1/bundle", "GET /v1/peering", "GET /v1/bundle/", "GET /v1/bundle;x",
		"GET /v1/probe", "GET /metrics", "GET /healthz",
	} {
		method, path, _ := strings.Cut(request, " ")
		if a, err := g.ask(c, method, path); err == nil ||
			(a.Code != http.StatusNotFound && a.Code != http.StatusMethodNotAllowed) {
			t.Errorf("%s: %d %s", request, a.Code, a.Body)
		}
	}
}
