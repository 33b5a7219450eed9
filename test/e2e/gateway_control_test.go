//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
)

// testControl speaks to the control plane as a peer's gateway may: in that peer's name alone, whatever its headers say, and of
// three things alone.
func (g *gateway) testControl(t *testing.T) {
	c := g.peers["north"].client("api")
	c.sni, c.asserts = "control.north.fed.home.example", nil
	const body = `{"sequence":1,"services":[{"name":"bait","namespace":"default","port":80,"protocol":"HTTP"}]}`
	push := func(headers ...string) gwAnswer {
		a, err := g.send(c, fmt.Sprintf("POST /v1/catalogue HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s",
			c.sni, len(body), strings.Join(append(headers, ""), "\r\n"), body))
		must(t, err)
		return a
	}
	if a := push("isthmus-peer: south", "Isthmus-Peer: east", "isthmus-invite: 00112233445566778899aabbccddeeff"); a.Code != http.StatusNoContent {
		t.Errorf("a catalogue in another's name: %d %s", a.Code, a.Body)
	}
	eventually(t, 5*time.Second, func() error { // as soon as it is published
		r, err := adminapi.Call[adminapi.PeerRequest, adminapi.CatalogResponse](t.Context(), g.admin, "Catalog", &adminapi.PeerRequest{})
		if err == nil && (len(r.Entries) != 1 || r.Entries[0].Peer != "north" || r.Entries[0].Name != "bait") {
			err = fmt.Errorf("offered is %+v, want what north offers", r.Entries)
		}
		return err
	})
	if a := push(); a.Code != http.StatusConflict {
		t.Errorf("the same catalogue again: %d %s", a.Code, a.Body)
	}

	a, err := g.ask(c, "GET", "/v1/bundle")
	must(t, err)
	for name, v := range a.Header {
		if err := holds(name+": "+v[0], ours...); err != nil {
			t.Error(err)
		}
	}
	for _, deed := range []string{
		"GET /", "GET /v1/catalogue", "PUT /v1/bundle", "POST /v1/peering", "GET /v1/bundle/", "GET /v1/bundle;x", "GET /v1//peering", "GET /metrics", "GET /healthz",
	} {
		method, path, _ := strings.Cut(deed, " ")
		if a, _ := g.ask(c, method, path); a.Code != http.StatusNotFound || a.Body != "" { // the gateway's answer, not the control plane's
			t.Errorf("%s: %d %s", deed, a.Code, a.Body)
		}
	}
}
