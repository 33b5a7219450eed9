package admin

import (
	"fmt"
	"strings"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/kind"
)

// maxSmall limits a message with names, a token or a certificate request.
const maxSmall = 32 << 10

// Limits on one administrator with a certificate, by method: for queries, and for recorded actions.
const (
	questionRate, questionBurst = 200, 400
	changeRate, changeBurst     = 5, 200
)

// Methods are the methods of the administration API.
var Methods = door.Methods{
	adminapi.Service: {
		"Status":       read("status"),
		"ProxyConfig":  read("proxy config"),
		"PeerList":     read("peer list"),
		"PeerProbe":    read("peer probe"),
		"PeerManifest": read("peer manifest"),
		"Catalogue":    read("catalogue"),
		"Exports":      read("exports"),
		"Imports":      read("imports"),
		"ImportDraft":  read("import"),
		"ExportDraft":  read("export"),
		"CertList":     read("cert list"),
		"Check":        read("check"),
		"Access":       read("access"),
		"Inventory":    read("inventory"),
		"CAStatus":     read("ca status"),
		"Events":       read("events"),
		"AdminList":    read("admin list"),
		"TokenList":    read("token list"),

		"CreateToken": recorded("token create", func(r *adminapi.TokenRequest) (string, string) {
			return kind.Node(r.Node).String(), grants(r)
		}),
		"AdminCert": localOnly(recorded("admin cert",
			func(r *adminapi.AdminCertRequest) (string, string) { return "administrator " + r.Name, "" })),
		"AdminRevoke": vital(recorded("admin revoke", func(r *adminapi.AdminRevokeRequest) (string, string) {
			return strings.TrimSpace("administrator " + r.Name + " " + r.ID), ""
		})),
		"TokenCancel": vital(recorded("token cancel", func(r *adminapi.TokenCancelRequest) (string, string) {
			if r.MadeBy != "" {
				return "join tokens made by " + r.MadeBy, ""
			}
			return "join token " + tokenID(r.ID), ""
		})),
		"RevokeNode": vital(recorded("node revoke",
			func(r *adminapi.NodeRequest) (string, string) { return kind.Node(r.Node).String(), "" })),
		"PeerTerms": recorded("peer set", func(r *adminapi.PeerTermsRequest) (string, string) {
			return "peer " + r.Peer, terms(r)
		}),
		"PeerInvite": recorded("peer invite",
			func(r *adminapi.PeerInviteRequest) (string, string) { return "peer " + r.Peer, "" }),
		"PeerAccept": recorded("peer accept", func(r *adminapi.PeerAcceptRequest) (string, string) {
			if r.Name == "" {
				return "invitation", "" // the event at the end contains the name that the peer proposes
			}
			return "peer " + r.Name, ""
		}),
		"PeerSuspend": vital(recorded("peer suspend", peerOf)),
		"PeerResume":  recorded("peer resume", peerOf),
		"PeerRevoke":  vital(recorded("peer revoke", peerOf)),
		"CARotate": recorded("ca rotate", func(r *adminapi.CARotateRequest) (string, string) {
			switch {
			case r.Force:
				return "root", "force"
			case r.Cancel:
				return "root", "cancel"
			}
			return "root", "begin"
		}),
	},
}

// tokenID returns the ID of a join token, even if the whole token was given.
func tokenID(text string) string {
	if t, err := ca.ParseToken(text); err == nil {
		return t.ID
	}
	return text
}

// grants describes what a join token grants.
func grants(r *adminapi.TokenRequest) string {
	all := fmt.Sprintf("role %s, identities %s", r.Role, strings.Join(r.Identities, " "))
	for i, w := range r.Workloads {
		if i == 0 {
			all += ", workloads"
		}
		all += " " + w.Namespace + "/" + w.Name
	}
	for i, a := range r.Addresses {
		if i == 0 {
			all += ", addresses"
		}
		all += " " + a.String()
	}
	return all
}

func peerOf(r *adminapi.PeerRequest) (object, detail string) { return "peer " + r.Peer, "" }

// read returns a method that changes nothing.
func read(action string) door.Method {
	return door.Method{
		Who: door.Administrator | door.Local, Bytes: maxSmall, Rate: questionRate, Burst: questionBurst, Action: action,
		Deny: "it takes an administrator's certificate; make one with 'isthmus admin cert' on the control plane's host",
	}
}

// recorded returns a method whose calls are recorded.
func recorded[Req any](action string, describe func(*Req) (object, detail string)) door.Method {
	m := read(action)
	m.Rate, m.Burst = changeRate, changeBurst
	m.Recorded, m.Describe = true, door.Describe(describe)
	return m
}

// vital makes a method independent of its record.
func vital(m door.Method) door.Method {
	m.Vital = true
	return m
}

// localOnly restricts a method to users of the control plane's own host.
func localOnly(m door.Method) door.Method {
	m.Who, m.Deny = door.Local, "it is done on the control plane's own host, over its socket"
	return m
}
