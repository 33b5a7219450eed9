package istioyaml

import networking "istio.io/client-go/pkg/apis/networking/v1"

func checkWorkloadEntry(r *report, o *networking.WorkloadEntry, doc map[string]any) {}
