package snapshot

import (
	"maps"
	"testing"
	"time"

	istiosec "istio.io/api/security/v1beta1"
	istiotype "istio.io/api/type/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"isthmus.dev/isthmus/internal/fieldtest"
)

func service(ns, name string, port int32) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: port}}},
	}
}

// The hash addresses content that was written down earlier: a change here makes all of that unknown.
func TestHashIsStable(t *testing.T) {
	policy := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web", Labels: map[string]string{"b": "2", "a": "1"},
	}}
	policy.Spec.Selector = &istiotype.WorkloadSelector{MatchLabels: map[string]string{"app": "web"}}
	policy.Spec.Action = istiosec.AuthorizationPolicy_DENY
	for want, value := range map[string]metav1.Object{
		`{"kind":"Service","metadata":{"annotations":null,"labels":null,"name":"web","namespace":"shop"},` +
			`"spec":{"ports":[{"name":"http","port":80,"targetPort":0}]}}`: service("shop", "web", 80),
		`{"kind":"AuthorizationPolicy","metadata":{"annotations":null,"labels":{"a":"1","b":"2"},"name":"web",` +
			`"namespace":"shop"},"spec":{"selector":{"matchLabels":{"app":"web"}},"action":"DENY"}}`: policy,
	} {
		if got, err := contentOf(value); err != nil || string(got) != want {
			t.Errorf("content\n%s\nwant\n%s\n%v", got, want, err)
		}
	}
	const want = "1be7cd330c61af457a166ef817b3759d70dd6cd67612dc4d43f23cd6b5e22816"
	if got := NewObject(service("shop", "web", 80), Origin{}).Hash.String(); got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
}

// What a server adds, and where the object is written, is no content.
func TestHashOfContent(t *testing.T) {
	object := func(change func(*corev1.Service)) Hash {
		s := service("shop", "web", 80)
		change(s)
		return NewObject(s, Origin{File: "a.yaml"}).Hash
	}
	plain := NewObject(service("shop", "web", 80), Origin{File: "b.yaml", Line: 7}).Hash
	for name, change := range map[string]func(*corev1.Service){
		"apiVersion": func(s *corev1.Service) { s.APIVersion, s.Kind = "v1", "Service" },
		"a server":   func(s *corev1.Service) { s.UID, s.ResourceVersion, s.Generation = types.UID("u"), "7", 3 },
		"status":     func(s *corev1.Service) { s.Status.Conditions = []metav1.Condition{{Type: "x"}} },
		"empty":      func(s *corev1.Service) { s.Spec.Selector = map[string]string{} },
	} {
		if object(change) != plain {
			t.Errorf("%s: another hash", name)
		}
	}
	seen := map[Hash]string{plain: "plain"}
	for name, change := range map[string]func(*corev1.Service){
		"name":       func(s *corev1.Service) { s.Name = "other" },
		"namespace":  func(s *corev1.Service) { s.Namespace = "other" },
		"label":      func(s *corev1.Service) { s.Labels = map[string]string{"a": "b"} },
		"annotation": func(s *corev1.Service) { s.Annotations = map[string]string{"a": "b"} },
		"port":       func(s *corev1.Service) { s.Spec.Ports[0].Port = 81 },
	} {
		h := object(change)
		if seen[h] != "" {
			t.Errorf("%s: the hash of %s", name, seen[h])
		}
		seen[h] = name
	}
}

func TestOriginEqual(t *testing.T) {
	fields := map[string]int{"spec": 3, "spec.ports": 300}
	o := Origin{Source: SourceFile, File: "a.yaml", Line: 1, Fields: FieldsOf(fields), FirstSeen: time.Unix(7, 0)}
	same := o
	same.Fields, same.FirstSeen = FieldsOf(maps.Clone(fields)), time.Unix(7, 0).UTC()
	if !o.Equal(same) {
		t.Error("a copy is another origin")
	}
	for name, change := range map[string]func(*Origin){
		"source": func(o *Origin) { o.Source = SourceToken },
		"file":   func(o *Origin) { o.File = "b.yaml" },
		"line":   func(o *Origin) { o.Line = 2 },
		"fields": func(o *Origin) { o.Fields = FieldsOf(map[string]int{"spec": 4, "spec.ports": 300}) },
		"age":    func(o *Origin) { o.FirstSeen = time.Unix(8, 0) },
	} {
		other := o
		if change(&other); o.Equal(other) {
			t.Errorf("%s: taken for the same", name)
		}
	}
	for field, want := range map[string]int{
		"spec.ports[0].port": 301, "spec.ports": 301, "spec.portsX": 4, "spec": 4, "metadata": 1, "": 1,
	} {
		if got := o.LineOf(field); got != want {
			t.Errorf("%q is in line %d, want %d", field, got, want)
		}
	}
	if (Origin{Line: 7}).LineOf("spec") != 7 || FieldsOf(nil) != (Fields{}) {
		t.Error("an origin without fields")
	}
}

// A field that these comparisons forget would be a change that nobody hears of.
func TestEveryFieldIsCompared(t *testing.T) {
	for _, wrong := range fieldtest.Unseen(Workload.Equal, nil) {
		t.Error("Workload: " + wrong)
	}
	fields := fieldtest.SamplesOf(FieldsOf(map[string]int{"spec": 1}), FieldsOf(map[string]int{"spec": 2}))
	for _, wrong := range fieldtest.Unseen(Origin.Equal, nil, fields) {
		t.Error("Origin: " + wrong)
	}
	for _, wrong := range fieldtest.Unseen(Closed.Equal, map[string]string{
		"Origin.Source": "changes nothing of what is closed", "Origin.Fields": "only the object's own line is shown",
	}, fields) {
		t.Error("Closed: " + wrong)
	}
}
