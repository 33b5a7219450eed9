package istioyaml

import corev1 "k8s.io/api/core/v1"

func checkService(r *report, o *corev1.Service, doc map[string]any) {}
