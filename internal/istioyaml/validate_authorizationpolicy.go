package istioyaml

import security "istio.io/client-go/pkg/apis/security/v1"

func checkAuthorizationPolicy(r *report, o *security.AuthorizationPolicy, doc map[string]any) {}
