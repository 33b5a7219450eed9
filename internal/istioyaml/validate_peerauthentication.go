package istioyaml

import security "istio.io/client-go/pkg/apis/security/v1"

func checkPeerAuthentication(r *report, o *security.PeerAuthentication, doc map[string]any) {}
