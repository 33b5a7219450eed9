package genmesh

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func TestEachProxyMayCallExactlyItsShare(t *testing.T) {
	m, err := New(Plan{Services: 100, Endpoints: 3, Proxies: 40, Callable: 5, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	callable := map[int]int{}
	for _, s := range m.Services {
		seen := map[int]bool{}
		for _, c := range s.Callers {
			if seen[c] {
				t.Errorf("%s names caller %d twice", s.Name(), c)
			}
			seen[c] = true
			callable[c]++
		}
	}
	for p := range 40 {
		if callable[p] != 5 {
			t.Errorf("proxy %d may call %d services, want 5", p, callable[p])
		}
	}
}

func TestAddressesAreUnique(t *testing.T) {
	m, err := New(Plan{Services: 5000, Endpoints: 5, Proxies: 1000, Callable: 5})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	take := func(a string) {
		if seen[a] {
			t.Fatalf("address %s used twice", a)
		}
		seen[a] = true
	}
	for _, s := range m.Services {
		for _, a := range s.Endpoints {
			take(a.String())
		}
	}
	for p := range 1000 {
		take(Workload(p).Addresses[0].String())
	}
	for n := range 1000 {
		take(Fresh(n).String())
	}
	if got := m.Services[0].Endpoints[0].String(); got != "10.64.0.1" {
		t.Errorf("first endpoint is %s, want 10.64.0.1", got)
	}
}

func TestTheSamePlanGivesTheSameMesh(t *testing.T) {
	p := Plan{Services: 20, Endpoints: 2, Proxies: 9, Callable: 4, Seed: 3}
	a, _ := New(p)
	b, _ := New(p)
	for i := range a.Services {
		if a.Services[i].YAML() != b.Services[i].YAML() {
			t.Fatalf("service %d differs", i)
		}
	}
}

func TestImpossiblePlansAreRefused(t *testing.T) {
	for _, p := range []Plan{
		{Services: 0, Endpoints: 1, Proxies: 1, Callable: 1},
		{Services: 3, Endpoints: 1, Proxies: 1, Callable: 4},
		{Services: 1 << 20, Endpoints: 9, Proxies: 1, Callable: 1},
	} {
		if _, err := New(p); err == nil {
			t.Errorf("plan %+v was accepted", p)
		}
	}
}

// TestFolderIsValid reads every written document back with the types that the control plane uses.
func TestFolderIsValid(t *testing.T) {
	m, err := New(Plan{Services: 51, Endpoints: 2, Proxies: 6, Callable: 2})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) != 52 {
		t.Fatalf("%d files, %v; want 52", len(files), err)
	}
	kinds := map[string]int{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range strings.Split(string(text), "\n---\n") {
			kinds[decode(t, f, doc)]++
		}
	}
	want := map[string]int{"Mesh": 1, "Namespace": 3, "Service": 51, "AuthorizationPolicy": 51, "WorkloadEntry": 102}
	total := 0
	for kind, n := range want {
		total += n
		if kinds[kind] != n {
			t.Errorf("%d objects of kind %s, want %d", kinds[kind], kind, n)
		}
	}
	if m.Objects() != total {
		t.Errorf("Objects() = %d, want %d", m.Objects(), total)
	}
}

func decode(t *testing.T, file, doc string) string {
	t.Helper()
	var head struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	into := map[string]any{
		"Mesh": &v1alpha1.Mesh{}, "Namespace": &corev1.Namespace{}, "Service": &corev1.Service{},
		"AuthorizationPolicy": &security.AuthorizationPolicy{}, "WorkloadEntry": &networking.WorkloadEntry{},
	}[head.Kind]
	if into == nil {
		t.Fatalf("%s: kind %q", file, head.Kind)
	}
	j, err := yaml.YAMLToJSONStrict([]byte(doc))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if err := json.Unmarshal(j, into); err != nil {
		t.Fatalf("%s: %s: %v", file, head.Kind, err)
	}
	if w, ok := into.(*networking.WorkloadEntry); ok &&
		(w.Spec.Address == "" || w.Spec.ServiceAccount == "" || w.Spec.Labels["app"] == "") {
		t.Errorf("%s: a WorkloadEntry without address, account or label", file)
	}
	return head.Kind
}
