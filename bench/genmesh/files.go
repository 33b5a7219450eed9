package genmesh

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Name of the service.
func (s Service) Name() string { return fmt.Sprintf("svc-%04d", s.Index) }

// Namespace of the service.
func (s Service) Namespace() string { return namespace(s.Index / servicesPerNamespace) }

// File is the name of the service's file.
func (s Service) File() string { return s.Name() + ".yaml" }

func namespace(n int) string { return fmt.Sprintf("team-%03d", n) }

// YAML is the service's file: the Service, who may call it, and where it runs.
func (s Service) YAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata:
  name: %[1]s
  namespace: %[2]s
spec:
  selector:
    app: %[1]s
  ports:
  - name: http
    port: 80
    targetPort: 8080
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: %[1]s
  namespace: %[2]s
spec:
  selector:
    matchLabels:
      app: %[1]s
  action: ALLOW
`, s.Name(), s.Namespace())
	if len(s.Callers) > 0 { // without rules nobody may call
		b.WriteString("  rules:\n  - from:\n    - source:\n        principals:\n")
		for _, c := range s.Callers {
			fmt.Fprintf(&b, "        - %s/ns/%s/sa/%s\n", TrustDomain, CallersNamespace, CallerAccount(c))
		}
	}
	for e, addr := range s.Endpoints {
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: %[1]s-%[3]d
  namespace: %[2]s
spec:
  address: %[4]s
  serviceAccount: %[1]s
  labels:
    app: %[1]s
`, s.Name(), s.Namespace(), e, addr)
	}
	return b.String()
}

// meshYAML is the file with the Mesh and the namespaces, room for one added service included.
func (m *Mesh) meshYAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: isthmus.dev/v1alpha1
kind: Mesh
metadata:
  name: bench
spec:
  trustDomain: %s
`, TrustDomain)
	for _, ns := range m.namespaces() {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n", ns)
	}
	return b.String()
}

func (m *Mesh) namespaces() []string {
	all := []string{CallersNamespace}
	for n := range m.Plan.Services/servicesPerNamespace + 1 {
		all = append(all, namespace(n))
	}
	return all
}

// Objects is how many objects the folder holds.
func (m *Mesh) Objects() int {
	n := 1 + len(m.namespaces())
	for _, s := range m.Services {
		n += 2 + len(s.Endpoints)
	}
	return n
}

// Write writes the whole folder, which must exist.
func (m *Mesh) Write(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "mesh.yaml"), []byte(m.meshYAML()), 0o644); err != nil {
		return fmt.Errorf("write the mesh: %w", err)
	}
	for _, s := range m.Services {
		if err := os.WriteFile(filepath.Join(dir, s.File()), []byte(s.YAML()), 0o644); err != nil {
			return fmt.Errorf("write service %s: %w", s.Name(), err)
		}
	}
	return nil
}
