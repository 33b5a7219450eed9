package istioyaml

import networking "istio.io/client-go/pkg/apis/networking/v1"

func checkServiceEntry(r *report, o *networking.ServiceEntry, doc map[string]any) {}
