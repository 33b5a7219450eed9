package federation

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"isthmus.dev/isthmus/internal/snapshot"
)

var noon = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func TestParseCatalogue(t *testing.T) {
	said := `{"sequence":3,"services":[{"name":"payments","namespace":"default","port":8080,"protocol":"HTTP"}]}`
	got, err := ParseCatalogue([]byte(said), noon)
	want := &snapshot.Catalogue{Sequence: 3, Time: noon, Services: []snapshot.OfferedService{
		{Name: "payments", Namespace: "default", Port: 8080, Protocol: "HTTP"},
	}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	raw, err := EncodeCatalogue(1, nil)
	if err != nil || string(raw) != `{"sequence":1,"services":[]}` {
		t.Errorf("%s %v", raw, err)
	}
}

func TestParseCatalogueRefuses(t *testing.T) {
	one := func(name, ns, port, protocol string) string {
		return fmt.Sprintf(`{"sequence":1,"services":[{"name":%q,"namespace":%q,"port":%s,"protocol":%q}]}`, name, ns,
			port, protocol)
	}
	tests := map[string]struct{ doc, says string }{
		"not json":        {"hello", "is not what it should be"},
		"no services":     {`{"sequence":1}`, "no list of services"},
		"sequence 0":      {`{"sequence":0,"services":[]}`, "no sequence number"},
		"sequence at end": {`{"sequence":18446744073709551615,"services":[]}`, "a time to come"},
		"more after":      {`{"sequence":1,"services":[]}{}`, "more follows"},
		"host for a name": {
			one("kubernetes.default", "default", "443", "TCP"),
			"service 1 of the catalogue: its name is no DNS label",
		},
		"wildcard":         {one("*", "default", "443", "TCP"), "its name is no DNS label"},
		"upper case":       {one("Payments", "default", "443", "TCP"), "its name is no DNS label"},
		"newline":          {one("pay\nments", "default", "443", "TCP"), "its name is no DNS label"},
		"dotted namespace": {one("payments", "kube-system.svc", "443", "TCP"), "its namespace is no DNS label"},
		"long name":        {one(strings.Repeat("a", 64), "default", "443", "TCP"), "its name is no DNS label"},
		"port 0":           {one("payments", "default", "0", "TCP"), "its port is 0"},
		"our own port":     {one("payments", "default", "15001", "TCP"), "its port is a port of the mesh itself"},
		"port 65536":       {one("payments", "default", "65536", "TCP"), "service 1 of the catalogue"},
		"protocol":         {one("payments", "default", "80", "http"), "its protocol is none of"},
		"an address":       {`{"sequence":1,"services":[{"name":"a","namespace":"b","port":1,"protocol":"TCP","address":"10.0.0.1"}]}`, "unknown field"},
		"twice": {
			`{"sequence":1,"services":[{"name":"a","namespace":"b","port":1,"protocol":"TCP"},{"name":"a","namespace":"b","port":2,"protocol":"TCP"}]}`,
			"b/a stands there twice",
		},
		"1 MB name": {
			one(strings.Repeat("a", 1<<20), "default", "443", "TCP"),
			"larger than 262144 bytes",
		},
		"a million entries": {
			`{"sequence":1,"services":[` + strings.Repeat("{},", 999_999) + `{}]}`,
			"larger than 262144 bytes",
		},
		"many empty entries": {
			`{"sequence":1,"services":[` + strings.Repeat("{},", 1000) + `{}]}`,
			"more than 1000 services",
		},
		"many entries of no object": {
			`{"sequence":1,"services":[` + strings.Repeat("1,", 1000) + `1]}`,
			"more than 1000 services",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseCatalogue([]byte(tt.doc), noon)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %v, want %q", err, tt.says)
			}
			if len(err.Error()) > 500 {
				t.Errorf("the refusal is %d bytes long", len(err.Error()))
			}
		})
	}
}

func FuzzParseCatalogue(f *testing.F) {
	f.Add([]byte(`{"sequence":3,"services":[{"name":"payments","namespace":"default","port":8080,"protocol":"HTTP"}]}`))
	f.Add([]byte(`{"sequence":1,"services":[]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseCatalogue(raw, noon)
		if err != nil {
			return
		}
		if len(c.Services) > 1000 {
			t.Fatalf("%d services accepted", len(c.Services))
		}
		for _, s := range c.Services {
			if strings.ContainsAny(s.Name+s.Namespace, "./*:\x00 ") || s.Port == 0 {
				t.Fatalf("accepted %+v", s)
			}
		}
		out, err := EncodeCatalogue(c.Sequence, c.Services)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseCatalogue(out, noon)
		if err != nil || !cmp.Equal(c, again) {
			t.Fatalf("does not read what it wrote: %v", err)
		}
	})
}
