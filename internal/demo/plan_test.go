package demo

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/source/file"
	"isthmus.dev/isthmus/samples"
)

func TestNetwork(t *testing.T) {
	var got []string
	ports := map[string]bool{}
	for _, a := range newPlan("isthmus").network().Attachments {
		got = append(got, strings.Join([]string{a.Namespace, a.Device, a.Address.String(), a.Bridge}, " "))
		if len(a.Port) > 15 {
			t.Errorf("%s: Linux allows 15 characters", a.Port)
		}
		if ports[a.Bridge+" "+a.Port] {
			t.Errorf("%s: twice on %s", a.Port, a.Bridge)
		}
		ports[a.Bridge+" "+a.Port] = true
	}
	want := []string{
		"isthmus-cards-payments eth0 10.71.0.11/24 isthmus-cards-host",
		"isthmus-cards-tokens eth0 10.71.0.12/24 isthmus-cards-host",
		"isthmus-cards-gw eth0 10.71.0.2/24 isthmus-cards-host",
		"isthmus-cards-gw eth1 198.51.100.11/24 isthmus-link",
		"isthmus-retail-storefront eth0 10.72.0.11/24 isthmus-retail-host",
		"isthmus-retail-catalogue eth0 10.72.0.12/24 isthmus-retail-host",
		"isthmus-retail-orders eth0 10.72.0.13/24 isthmus-retail-host",
		"isthmus-retail-standby eth0 10.72.0.14/24 isthmus-retail-host",
		"isthmus-retail-gw eth0 10.72.0.2/24 isthmus-retail-host",
		"isthmus-retail-gw eth1 198.51.100.12/24 isthmus-link",
		"isthmus-outsider eth0 198.51.100.66/24 isthmus-link",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestSamplesAreAccepted reads each mesh as its control plane will, alone and with each federation file beside it.
func TestSamplesAreAccepted(t *testing.T) {
	for _, c := range []struct {
		mesh, federation string
		objects          int
	}{
		{"cards", "", 9},
		{"cards", "export-payments.yaml", 10},
		{"retail", "", 9},
		{"retail", "import-payments.yaml", 10},
		{"retail", "import-payments-failover.yaml", 12},
	} {
		dir := t.TempDir()
		if err := copyYAML(samples.Files, c.mesh, dir); err != nil {
			t.Fatal(err)
		}
		if c.federation != "" {
			b, err := fs.ReadFile(samples.Files, "federation/"+c.mesh+"/"+c.federation)
			if err != nil {
				t.Fatal(err)
			}
			if err := writeFile(filepath.Join(dir, c.federation), b); err != nil {
				t.Fatal(err)
			}
		}
		config, err := file.LoadDir(dir, istioyaml.Validator(schema.New().Validate))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range config.Findings {
			t.Errorf("%s %s: %s:%d %s: %s", c.mesh, c.federation, filepath.Base(f.File), f.Line, f.Code, f.Message)
		}
		if config.Objects.Len() != c.objects {
			t.Errorf("%s %s: %d objects, want %d", c.mesh, c.federation, config.Objects.Len(), c.objects)
		}
	}
}

func TestFindAWorkload(t *testing.T) {
	p := newPlan("isthmus")
	for name, want := range map[string]string{
		"storefront": "10.72.0.11", "retail/standby": "10.72.0.14", "cards/storefront": "", "nobody": "",
	} {
		_, w, ok := p.find(name)
		if ok != (want != "") || ok && w.address.String() != want {
			t.Errorf("%s: %v %v", name, w.address, ok)
		}
	}
}
