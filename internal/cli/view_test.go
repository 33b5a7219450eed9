package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

var relative, absolute = when{now: now}, when{now: now, wide: true}

func same(t *testing.T, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("text differs (-want +got):\n%s", diff)
	}
}

const (
	oneRoot   = "3fa92c0b3fa92c0b3fa92c0b3fa92c0b3fa92c0b3fa92c0b3fa92c0b3fa92c0b"
	otherRoot = "77aa00ff77aa00ff77aa00ff77aa00ff77aa00ff77aa00ff77aa00ff77aa00ff"
)

func cards() adminapi.StatusResponse {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	return adminapi.StatusResponse{
		Mesh: "cards", TrustDomain: "cards.example", Version: "v0.1.0", Started: ago(3 * time.Hour),
		ConfigFiles: 2, Objects: 14, RootNotAfter: now.Add(3650 * 24 * time.Hour), RootSHA256: oneRoot,
		Findings: []finding.Finding{
			{
				Code: "ISM0200", Severity: finding.Warning,
				Object: kind.Key{Kind: "Service", Namespace: "default", Name: "x"}, Message: "selects nothing.",
				Remedy: "mend the selector.",
			},
			{
				Code: "ISM0103", File: "a.yaml", Line: 3,
				Object: kind.Key{Kind: "FederatedExport", Namespace: "default", Name: "p"}, Field: "spec.port",
				Message: "no such port.", Remedy: "name one.",
			},
		},
		Proxies: []adminapi.ProxyStatus{
			{
				Name: "cards-gateway", Role: snapshot.RoleGateway, Connected: true, Since: ago(10 * time.Minute),
				Envoy: agentapi.EnvoyState{Running: true, Version: "1.40.0", Restarts: 1},
				Types: []adminapi.TypeStatus{
					{
						Type: "CDS", Resources: 3, Sent: "aa", Acked: "aa", SentAt: ago(time.Minute),
						AckedAt: ago(time.Minute - 12*time.Millisecond),
					},
					{
						Type: "LDS", Resources: 1, Sent: "cc", Acked: "bb", SentAt: ago(5 * time.Second),
						Nack: "bad\x1b[31mfilter",
					},
				},
			},
			{
				Name: "cards-node", Role: snapshot.RoleNode, Connected: true, Since: ago(20 * time.Second),
				Workloads: []string{"default/payments", "default/tokens"},
				Envoy:     agentapi.EnvoyState{Running: true, Version: "1.40.0"},
				Types: []adminapi.TypeStatus{
					{
						Type: "CDS", Resources: 4, Sent: "aa", Acked: "aa", SentAt: ago(time.Minute),
						AckedAt: ago(time.Minute - 12*time.Millisecond),
					},
				},
				Certs: []agentapi.CertState{{NotAfter: now.Add(4 * time.Minute)}, {NotAfter: now.Add(3 * time.Minute)}},
			},
			{Name: "old-node", Role: snapshot.RoleNode, Since: ago(72 * time.Hour)},
		},
	}
}

func TestStatusText(t *testing.T) {
	same(t, statusText(cards(), relative), `  mesh           cards, trust domain cards.example
  control plane  isthmus v0.1.0, started 3h ago
  configuration  14 objects in 2 files; 1 error, 1 warning (isthmus status --findings)
  root           3fa92c0b3fa92c0b…, ends in 3650d

PROXY          ROLE     CONNECTED        CONFIG       ENVOY          WORKLOADS
cards-gateway  gateway  since 10m ago    refused LDS  up, 1 restart  0
cards-node     node     since 20s ago    current      up             2
old-node       node     no, left 3d ago  none         down           0

‼ cards-gateway refused LDS: bad?[31mfilter
  Next: isthmus proxy config cards-gateway --type lds
`)
}

func TestStatusTextOfAnEmptyMesh(t *testing.T) {
	same(t, statusText(adminapi.StatusResponse{
		Mesh: "retail", TrustDomain: "retail.example", Version: "v1", Started: now.Add(-time.Second), ConfigFiles: 1,
		Objects: 1, RootSHA256: "ab", RootNotAfter: now.Add(time.Hour),
	},
		absolute),
		`  mesh           retail, trust domain retail.example
  control plane  isthmus v1, started 2026-11-22T11:59:59Z
  configuration  1 object in 1 file; nothing to fix
  root           ab, ends 2026-11-22T13:00:00Z

No proxy has joined yet. Next: isthmus token create --node NAME --identity NAMESPACE/SERVICEACCOUNT
`)
}

func TestWideProxiesTable(t *testing.T) {
	same(t, proxiesTable(cards().Proxies[1:2], absolute).String(),
		"PROXY       ROLE  CONNECTED                   CONFIG   LAG   CERTIFICATES                        ENVOY      WORKLOADS\n"+
			"cards-node  node  since 2026-11-22T11:59:40Z  current  12ms  2, first ends 2026-11-22T12:03:00Z  up 1.40.0  "+
			"default/payments default/tokens\n")
}

func TestFindingsText(t *testing.T) {
	same(t, findingsText(cards().Findings, false), `ISM0103 error a.yaml:3 FederatedExport default/p
  spec.port: no such port.
  Fix: name one.
ISM0200 warning Service default/x
  selects nothing.
  Fix: mend the selector.
`)
	same(t, findingsText(nil, false), "Nothing to fix.\n")
	same(t, findingsText(cards().Findings, true),
		"ISM0103 error a.yaml:3 FederatedExport default/p spec.port: no such port. Fix: name one.\n"+
			"ISM0200 warning Service default/x: selects nothing. Fix: mend the selector.\n")
	long := finding.Finding{
		Code: "ISM0103", Severity: finding.Error, File: "a.yaml", Line: 3, Message: "a b" + strings.Repeat(" c", 40),
		Remedy: "no\nline",
	}
	same(t, findingText(long, "  "), `  ISM0103 error a.yaml:3
    a b c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c
    c c c c
    Fix: no line
`)
}

func TestTypesTable(t *testing.T) {
	same(t, typesTable(cards().Proxies[:1], absolute).String(), `PROXY          TYPE  RESOURCES  SENT  ACKNOWLEDGED  SENT AT               ACKNOWLEDGED AT
cards-gateway  CDS   3          aa    aa            2026-11-22T11:59:00Z  2026-11-22T11:59:00Z
cards-gateway  LDS   1          cc    bb            2026-11-22T11:59:55Z  never
`)
}

func TestConfigState(t *testing.T) {
	sent := now.Add(-2 * time.Second)
	for name, tc := range map[string]struct {
		types      []adminapi.TypeStatus
		state, lag string
	}{
		"nothing sent": {nil, "none", "-"},
		"behind": {
			[]adminapi.TypeStatus{{Type: "RDS", Sent: "b", Acked: "a", SentAt: sent}},
			"behind RDS",
			"waiting 2s",
		},
		"refusal wins": {[]adminapi.TypeStatus{
			{Type: "RDS", Sent: "b", Acked: "a", SentAt: sent},
			{Type: "CDS", Nack: "no"},
		}, "refused CDS", "waiting 2s"},
		"current": {[]adminapi.TypeStatus{{
			Type: "RDS", Sent: "b", Acked: "b", SentAt: sent, AckedAt: sent.Add(30 * time.Millisecond),
		}}, "current", "30ms"},
	} {
		if got := configState(tc.types); got != tc.state {
			t.Errorf("%s: state %q, want %q", name, got, tc.state)
		}
		if got := lag(tc.types, now); got != tc.lag {
			t.Errorf("%s: lag %q, want %q", name, got, tc.lag)
		}
	}
}

func TestResourcesText(t *testing.T) {
	rs := []adminapi.ProxyResource{
		{
			Type: "CDS", Name: "payments", Version: "0123456789abcdef", Bytes: 812,
			Objects: []string{"Service default/payments (cards.yaml:3)"},
		},
		{
			Type: "LDS", Name: "inbound", Version: "ff", Bytes: 4001,
			Objects: []string{"Mesh cards (mesh.yaml:1)", "AuthorizationPolicy default/p (p.yaml:9)"},
		},
	}
	same(t, resourcesText(rs, relative), `TYPE  NAME      VERSION   BYTES  FROM
CDS   payments  01234567  812    Service default/payments (cards.yaml:3)
LDS   inbound   ff        4001   Mesh cards (mesh.yaml:1), AuthorizationPolicy default/p (p.yaml:9)

Whole: -o yaml
`)
	same(t, resourcesText(nil, relative), "Nothing of that was sent.\n")
}

func TestCertsText(t *testing.T) {
	cert := func(node, id string, life time.Duration) adminapi.NodeCert {
		return adminapi.NodeCert{
			Node: node,
			CertState: agentapi.CertState{
				SPIFFEID: id, Serial: "0a1b", Fingerprint: otherRoot, NotAfter: now.Add(life),
			},
		}
	}
	certs := []adminapi.NodeCert{
		cert("n1", "spiffe://cards.example/ns/default/sa/tokens", 50*time.Minute),
		cert("n1", "spiffe://cards.example/ns/default/sa/payments", -time.Minute),
		cert("n2", "spiffe://cards.example/isthmus/node/n2", 40*24*time.Hour),
	}
	same(t, certsText(ending(certs, now, 24*time.Hour), relative), `NODE  IDENTITY                                       ENDS           SERIAL  SHA-256
n1    spiffe://cards.example/ns/default/sa/payments  ended 60s ago  0a1b    77aa00ff77aa00ff…
n1    spiffe://cards.example/ns/default/sa/tokens    in 50m         0a1b    77aa00ff77aa00ff…
`)
	if n := len(ending(certs, now, 0)); n != 3 {
		t.Errorf("without a limit %d certificates are listed, want 3", n)
	}
	if certs[0].SPIFFEID != "spiffe://cards.example/ns/default/sa/tokens" {
		t.Error("ending changed its input")
	}
}

func TestCheckText(t *testing.T) {
	same(t, checkText([]adminapi.Check{
		{Name: "configuration", State: "ok", Detail: "14 objects, no finding"},
		{Name: "root", State: "warning", Detail: "ends in 21 days", Remedy: "prepare a new root"},
		{Name: "proxies", State: "failed", Detail: "cards-node is away", Remedy: "look at its log"},
		{Name: "new check", State: "odd", Detail: "x"},
	}), `√ configuration: 14 objects, no finding
‼ root: ends in 21 days
    → prepare a new root
× proxies: cards-node is away
    → look at its log
? new check: x

1 ok, 1 to watch, 2 broken
`)
}

func TestAccessText(t *testing.T) {
	same(t, accessText([]adminapi.AccessEdge{
		{
			From: "default/storefront", To: "catalogue.default.svc.cluster.local:80",
			By: []string{"AuthorizationPolicy default/catalogue"},
		},
		{
			From: "default/orders", To: "payments.default.svc.cluster.local:80",
			By: []string{"FederatedImport default/payments", "x"},
		},
	}), `FROM                TO                                      BY
default/storefront  catalogue.default.svc.cluster.local:80  AuthorizationPolicy default/catalogue
default/orders      payments.default.svc.cluster.local:80   FederatedImport default/payments, x
`)
	same(t, accessText(nil),
		"No workload may call another: no policy in force allows it between workloads that are registered.\n  Next: isthmus status --findings\n")
}

func retailPeer() adminapi.PeerStatus {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	return adminapi.PeerStatus{
		Name: "retail", TrustDomain: "retail.example", KnownAs: "cards", Source: "peering",
		Addresses: []string{"192.0.2.2:15443"}, PeersFingerprint: otherRoot, OwnFingerprint: oneRoot,
		Roots: []string{otherRoot}, OwnRoots: []string{oneRoot}, BundleSequence: 3, BundleTime: ago(4 * time.Minute),
		MaxBundleAge: 24 * time.Hour, RootNotAfter: now.Add(100 * 24 * time.Hour), CatalogueSequence: 1,
		CatalogueTime: ago(30 * time.Second), Offered: 1, Exports: 1, Imports: 0,
		Counts: agentapi.PeerCounts{
			HandshakesOK: 12, HandshakesFailed: 2, Requests: 40, Denials: 3, BytesIn: 1000, BytesOut: 2000,
		},
		Conditions: []adminapi.Condition{
			{Type: "TrustEstablished", Status: "True", Reason: "Peering", Since: ago(time.Hour)},
			{Type: "BundleFresh", Status: "True", Reason: "Confirmed", Since: ago(time.Hour)},
			{Type: "CatalogueSynced", Status: "True", Since: ago(time.Minute)},
			{
				Type: "DataPathReady", Status: "False", Reason: "NoHandshake",
				Message: "192.0.2.2:15443 refused the connection", Since: ago(90 * time.Second),
			},
		},
	}
}

func TestPeersText(t *testing.T) {
	same(t, peersText([]adminapi.PeerStatus{retailPeer()}, relative), `PEER    TRUST DOMAIN    STATE         BUNDLE  CATALOGUE  OFFERED  EXPORTS  IMPORTS  REQUESTS  DENIED  FAILED HANDSHAKES
retail  retail.example  no data path  4m ago  30s ago    1        1        0        40        3       2
`)
	same(t, peersText(nil, relative), "No peer. To begin: isthmus peer invite NAME here, isthmus peer accept there.\n")
}

func TestPeerStatusText(t *testing.T) {
	same(t, peerStatusText([]adminapi.PeerStatus{retailPeer()}, relative), `retail: no data path
  trust domain        retail.example
  gateways            192.0.2.2:15443
  knows this mesh as  cards
  from                peering
  this mesh           3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b
  the peer            77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff
  this mesh's root    3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b 3fa9 2c0b
  the peer's root     77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff 77aa 00ff
  root ends           in 100d
  bundle              sequence 3, confirmed 4m ago, refused when older than 24h
  catalogue           sequence 1, received 30s ago, 1 service offered
  exports, imports    1, 0
  handshakes          12 done, 2 failed
  requests            40, 3 denied, 1000 bytes in, 2000 bytes out

CONDITION         STATUS  SINCE    REASON       MESSAGE
TrustEstablished  True    60m ago  Peering      -
BundleFresh       True    60m ago  Confirmed    -
CatalogueSynced   True    60s ago  -            -
DataPathReady     False   90s ago  NoHandshake  192.0.2.2:15443 refused the connection
`)
}

func TestPeerState(t *testing.T) {
	well := map[string]string{
		"TrustEstablished": "True", "BundleFresh": "True", "CatalogueSynced": "True", "DataPathReady": "True",
	}
	for want, change := range map[string][2]string{
		"ready":        {"Expiring", "False"},
		"expiring":     {"Expiring", "True"},
		"suspended":    {"Suspended", "True"},
		"revoked":      {"Revoked", "True"},
		"stale bundle": {"BundleFresh", "False"},
		"no trust":     {"TrustEstablished", "Unknown"},
		"no catalogue": {"CatalogueSynced", "False"},
		"no data path": {"DataPathReady", "Unknown"},
	} {
		conditions := []adminapi.Condition{{Type: change[0], Status: change[1]}}
		for k, v := range well {
			if k != change[0] {
				conditions = append(conditions, adminapi.Condition{Type: k, Status: v})
			}
		}
		if got := peerState(conditions); got != want {
			t.Errorf("%s=%s: %q, want %q", change[0], change[1], got, want)
		}
	}
	connecting := []adminapi.Condition{
		{Type: "TrustEstablished", Status: "True"},
		{Type: "BundleFresh", Status: "True"},
		{Type: "DataPathReady", Status: "Unknown", Reason: "Connecting"},
	}
	if got := peerState(connecting); got != "connecting" {
		t.Errorf("connecting: %q", got)
	}
	if got := peerState(nil); got != "no trust" {
		t.Errorf("without conditions: %q, want no trust", got)
	}
}

func TestFederationTables(t *testing.T) {
	same(t, catalogueText([]adminapi.CatalogueEntry{
		{Peer: "cards", OfferedService: snapshot.OfferedService{
			Name: "payments", Namespace: "default", Port: 80, Protocol: "HTTP",
		}, ImportedAs: []string{"default/payments"}},
		{Peer: "cards", OfferedService: snapshot.OfferedService{
			Name: "tokens", Namespace: "default", Port: 9000, Protocol: "TCP",
		}},
	}), `PEER   NAMESPACE  NAME      PORT  PROTOCOL  IMPORTED AS
cards  default    payments  80    HTTP      default/payments
cards  default    tokens    9000  TCP       -
`)
	exports := []adminapi.ExportStatus{{
		Name: "default/payments", Service: "payments", Port: 80, Protocol: "HTTP", Alias: "payments", Peer: "retail",
		SNI: "payments.default.retail.fed.cards.example", Rules: 2, Endpoints: 1, State: "Ready",
	}}
	same(t, exportsText(exports, relative), `EXPORT            SERVICE   PORT  PROTOCOL  ALIAS     PEER    RULES  ENDPOINTS  STATE
default/payments  payments  80    HTTP      payments  retail  2      1          Ready
`)
	same(t, exportsText(exports, absolute), `EXPORT            SERVICE   PORT  PROTOCOL  ALIAS     PEER    RULES  ENDPOINTS  STATE  SNI
default/payments  payments  80    HTTP      payments  retail  2      1          Ready  payments.default.retail.fed.cards.example
`)
	imports := []adminapi.ImportStatus{{
		Name: "default/payments", Host: "payments.default.svc.cluster.local", Port: 80, Protocol: "HTTP",
		VIP: "240.240.0.7", From: []string{"cards/default/payments weight 1 priority 0 ready"}, State: "Ready",
	}}
	same(t, importsText(imports, absolute), `IMPORT            HOST                                   PROTOCOL  CALLERS  STATE  FROM                                              ADDRESS
default/payments  payments.default.svc.cluster.local:80  HTTP      nobody   Ready  cards/default/payments weight 1 priority 0 ready  240.240.0.7
`)
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		12 * time.Millisecond: "12ms", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m",
		2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%s) = %q, want %q", d, got, want)
		}
	}
}

func TestPast(t *testing.T) {
	for at, want := range map[time.Time]string{
		{}: "never", now: "just now", now.Add(2 * time.Second): "just now",
		now.Add(-999 * time.Millisecond): "just now", now.Add(-time.Second): "1s ago",
	} {
		if got := relative.past(at); got != want {
			t.Errorf("past(%s) = %q, want %q", at, got, want)
		}
	}
}

func TestDays(t *testing.T) {
	for in, want := range map[string]time.Duration{"": 0, "7d": 168 * time.Hour, "90m": 90 * time.Minute} {
		if got, err := days(in); err != nil || got != want {
			t.Errorf("days(%q) = %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"d", "-1d", "0d", "1.5d", "soon", "-3h", "999999d"} {
		if got, err := days(in); err == nil {
			t.Errorf("days(%q) = %s, want an error", in, got)
		}
	}
}
