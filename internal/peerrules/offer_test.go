package peerrules

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
)

func export(ns, service, alias string, port int32, peers ...string) *v1alpha1.FederatedExport {
	e := &v1alpha1.FederatedExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: service},
		Spec:       v1alpha1.FederatedExportSpec{Service: service, Port: port, Alias: alias},
	}
	for _, p := range peers {
		e.Spec.To = append(e.Spec.To, v1alpha1.ExportTo{Peer: p})
	}
	return e
}

func TestOffer(t *testing.T) {
	h2c := "kubernetes.io/h2c"
	service := func(ns, name string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
			Spec:       corev1.ServiceSpec{Ports: ports},
		}
	}
	cfg := &snapshot.Config{Objects: snapshot.ObjectsOf(
		export("shop", "orders", "", 80, "retail"),
		export("default", "tokens", "vault", 9000, "bank", "retail"),
		export("default", "payments", "", 8080, "retail"),
		export("default", "secret", "", 8080),
		export("default", "other", "payments", 8080, "retail"),
		export("default", "missing", "", 1, "retail"),
		export("default", "payments", "wrong-port", 81, "retail"),
		service("default", "other", corev1.ServicePort{Name: "http", Port: 8080}),
		service("default", "payments", corev1.ServicePort{Name: "http-web", Port: 8080}),
		service("default", "secret", corev1.ServicePort{Name: "http", Port: 8080}),
		service("default", "tokens", corev1.ServicePort{Name: "raw", Port: 9000},
			corev1.ServicePort{Name: "dns", Port: 9001, Protocol: corev1.ProtocolUDP}),
		service("shop", "orders", corev1.ServicePort{Name: "http", Port: 80, AppProtocol: &h2c}),
	)}
	want := []snapshot.OfferedService{
		{Name: "payments", Namespace: "default", Port: 8080, Protocol: "HTTP"},
		{Name: "vault", Namespace: "default", Port: 9000, Protocol: "TCP"},
		{Name: "orders", Namespace: "shop", Port: 80, Protocol: "HTTP2"},
	}
	if diff := cmp.Diff(want, Offer(cfg, "retail")); diff != "" {
		t.Error(diff)
	}
	if got := Offer(cfg, "stranger"); len(got) != 0 {
		t.Errorf("a stranger is offered %v", got)
	}
}
