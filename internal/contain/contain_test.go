package contain_test

import (
	"reflect"
	"slices"
	"testing"

	typev1beta1 "istio.io/api/type/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/internal/contain"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

var meta = metav1.ObjectMeta{Namespace: "default", Name: "one"}

// everything has one object of each kind.
func everything() *snapshot.Config {
	selected := func(app string) *typev1beta1.WorkloadSelector {
		return &typev1beta1.WorkloadSelector{MatchLabels: map[string]string{"app": app}}
	}
	var change snapshot.Change
	for _, k := range kind.All {
		value := reflect.New(k.Type).Interface().(metav1.Object)
		value.SetName("one")
		if k.Namespaced {
			value.SetNamespace("default")
		}
		switch o := value.(type) {
		case *security.PeerAuthentication:
			o.Spec.Selector = selected("web")
		case *security.AuthorizationPolicy:
			o.Spec.Selector = selected("pay")
		}
		change.Put(snapshot.NewObject(value, snapshot.Origin{}))
	}
	return (&snapshot.Config{}).With(change)
}

// Every kind can be closed, but the Mesh.
func TestEveryKind(t *testing.T) {
	cfg := everything()
	got := contain.Objects(cfg)
	if len(got) != len(kind.All)-1 || slices.ContainsFunc(got,
		func(o *snapshot.Object) bool { return o.Key.Kind == "Mesh" }) {
		t.Errorf("objects that can be closed: %v", contain.Keys(got))
	}
	closed := contain.Close(cfg, contain.Keys(contain.Objects(cfg)), "of a test")
	if left := contain.Objects(closed); len(left) > 0 || closed.Mesh() == nil {
		t.Errorf("left of it: %v, Mesh %v", contain.Keys(left), closed.Mesh())
	}
	if len(closed.Closed) != len(got) || len(contain.Objects(cfg)) != len(got) || len(cfg.Closed) > 0 {
		t.Errorf("%d closed, the former configuration has %d objects", len(closed.Closed), len(contain.Objects(cfg)))
	}
	blamed := contain.Objects(cfg)
	contain.SortByBlame(cfg, blamed)
	if blamed[0].Key.Kind != "Namespace" || blamed[len(blamed)-1].Key.Kind != "AuthorizationPolicy" {
		t.Errorf("to be blamed in the order %v", contain.Keys(blamed))
	}
}

func TestClose(t *testing.T) {
	cfg := everything()
	key := snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "default", Name: "one"}
	cfg.Objects = cfg.Objects.WithOrigins(map[snapshot.Key]snapshot.Origin{key: {File: "a.yaml", Line: 7}})
	out := contain.Close(cfg, []snapshot.Key{key, {Kind: "AuthorizationPolicy", Namespace: "default", Name: "another"}},
		"of a test")
	want := []snapshot.Closed{{
		Key: key, Origin: snapshot.Origin{File: "a.yaml", Line: 7}, Reason: "of a test",
		Selector: map[string]string{"app": "pay"},
	}}
	if !reflect.DeepEqual(out.Closed, want) || out.Objects.Get(key) != nil || out.Objects.Len() != cfg.Objects.Len()-1 {
		t.Errorf("closed %+v", out.Closed)
	}
	if contain.Close(cfg, nil, "") != cfg {
		t.Error("nothing was closed, and there is another configuration")
	}
}

func TestChanged(t *testing.T) {
	before, now := everything(), everything()
	if got := contain.Changed(before, now); len(got) > 0 {
		t.Errorf("read again, %v has changed", contain.Keys(got))
	}
	policy := &security.AuthorizationPolicy{ObjectMeta: meta}
	policy.Spec.Selector = &typev1beta1.WorkloadSelector{MatchLabels: map[string]string{"app": "other"}}
	change := snapshot.PutAll[metav1.Object](policy,
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "two"}})
	change.Remove(snapshot.Key{Kind: "WorkloadEntry", Namespace: "default", Name: "one"})
	now = now.With(change)
	want := []snapshot.Key{{Kind: "AuthorizationPolicy", Namespace: "default", Name: "one"}, {
		Kind: "Service", Namespace: "default", Name: "two",
	}}
	if got := contain.Keys(contain.Changed(before, now)); !reflect.DeepEqual(got, want) {
		t.Errorf("changed: %v, want %v", got, want)
	}
	if got := contain.Changed(nil, now); len(got) != len(kind.All)-1 {
		t.Errorf("since nothing, %d have changed", len(got))
	}
}

// A security kind whose selector is not found would close a whole namespace where it closes one workload.
func TestSecurityKindsHaveASelector(t *testing.T) {
	found := 0
	for _, k := range kind.All {
		if !k.Security() {
			continue
		}
		found++
		value := reflect.New(k.Type)
		if f := value.Elem().FieldByName("Spec").FieldByName("Selector"); f.IsValid() {
			f.Set(reflect.ValueOf(&typev1beta1.WorkloadSelector{MatchLabels: map[string]string{"app": "pay"}}))
		}
		value.Interface().(metav1.Object).SetName("one")
		var change snapshot.Change
		change.Put(snapshot.NewObject(value.Interface().(metav1.Object), snapshot.Origin{}))
		cfg := (&snapshot.Config{}).With(change)
		closed := contain.Close(cfg, []snapshot.Key{{Kind: k.Name, Name: "one"}}, "a reason").Closed
		if len(closed) != 1 || closed[0].Selector["app"] != "pay" {
			t.Errorf("%s: closed is %v", k.Name, closed)
		}
	}
	if found < 2 {
		t.Errorf("%d kinds are of security: too few", found)
	}
}
