package agentapi

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
)

// Agents and control planes of different versions speak to each other: what is on the wire stays as it is.
func TestWire(t *testing.T) {
	ip, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for wire, value := range map[string]any{
		`{"token":"t","csr":"AQI="}`: AttestRequest{Token: "t", CSR: []byte{1, 2}},
		`{"node":"a","role":"node","chain":["AQ=="],"roots":"Ag=="}`: AttestResponse{
			Node: "a", Role: snapshot.RoleNode, Chain: [][]byte{{1}}, Roots: []byte{2},
		},
		`{"csr":"AQ=="}`: SignRequest{CSR: []byte{1}},
		`{"namespace":"n","serviceAccount":"s","csr":"AQ=="}`: SignRequest{
			Namespace: "n", ServiceAccount: "s",
			CSR: []byte{1},
		},
		`{"version":"v","gateway":{"serviceAccount":"g","innerAddress":"10.0.0.1","outerAddress":"10.0.0.1"},"envoy":{"running":true,"restarts":2},` +
			`"peers":{"p":{"handshakesOK":1,"handshakesFailed":2,"requests":3,"denials":4,"bytesIn":5,"bytesOut":6}}}`: Report{
			Version: "v", Gateway: &snapshot.GatewayInfo{ServiceAccount: "g", InnerAddress: ip, OuterAddress: ip},
			Envoy: EnvoyState{Running: true, Restarts: 2},
			Peers: map[string]PeerCounts{"p": {
				HandshakesOK: 1, HandshakesFailed: 2, Requests: 3, Denials: 4,
				BytesIn: 5, BytesOut: 6,
			}},
		},
		`{"version":"v","gateway":{"serviceAccount":"g","innerAddress":"10.0.0.1","outerAddress":"10.0.0.1","innerAddress6":"fd00::1","outerAddress6":"fd00::1"},` +
			`"envoy":{"running":true,"restarts":0}}`: Report{
			Version: "v", Gateway: &snapshot.GatewayInfo{
				ServiceAccount: "g", InnerAddress: ip, OuterAddress: ip,
				InnerAddress6: six, OuterAddress6: six,
			},
			Envoy: EnvoyState{Running: true},
		},
		`{"version":"v","workloads":[{"name":"w","namespace":"n","serviceAccount":"s","node":"","labels":{"a":"b"},"addresses":["10.0.0.1"],"netns":"/n",` +
			`"ports":[{"name":"http","number":80}],"ready":true}],"envoy":{"running":false,"restarts":0},` +
			`"certs":[{"spiffeID":"i","serial":"1","fingerprint":"f","notBefore":"2026-11-22T12:00:00Z","notAfter":"2026-11-22T12:00:00Z"}]}`: Report{
			Version: "v", Workloads: []snapshot.Workload{{
				Name: "w", Namespace: "n", ServiceAccount: "s", Labels: map[string]string{"a": "b"},
				Addresses: []netip.Addr{ip}, Netns: "/n",
				Ports: []snapshot.WorkloadPort{{Name: "http", Number: 80}}, Ready: true,
			}},
			Certs: []CertState{{SPIFFEID: "i", Serial: "1", Fingerprint: "f", NotBefore: at, NotAfter: at}},
		},
		`{"trustDomain":"t","certificateTTL":300000000000,"dns":{"n/w":{"hosts":{"h":["10.0.0.1"]},"refusal":"10.0.0.1","refusalSuffixes":["x"],"meshSuffix":"svc"}}}`: Instructions{
			TrustDomain: "t", CertificateTTL: 5 * time.Minute,
			DNS: map[string]DNSTable{"n/w": {
				Hosts: map[string][]netip.Addr{"h": {ip}}, Refusal: ip,
				RefusalSuffixes: []string{"x"}, MeshSuffix: "svc",
			}},
		},
		`{"trustDomain":"","certificateTTL":0,"dns":{"n/w":{"hosts":{"h":["fd00::1"]},"refusal":"","refusal6":"fd00::1","meshSuffix":"svc"}}}`: Instructions{
			DNS: map[string]DNSTable{"n/w": {
				Hosts: map[string][]netip.Addr{"h": {six}}, Refusal6: six,
				MeshSuffix: "svc",
			}},
		},
	} {
		got, err := json.Marshal(value)
		if err != nil || string(got) != wire {
			t.Errorf("%T is sent as\n%s (%v), want\n%s", value, got, err, wire)
		}
		back := reflect.New(reflect.TypeOf(value))
		if err := json.Unmarshal([]byte(wire), back.Interface()); err != nil ||
			!reflect.DeepEqual(back.Elem().Interface(), value) {
			t.Errorf("%s is read as %+v (%v)", wire, back.Elem(), err)
		}
	}
}
