package meshd

import (
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/envoy"
)

const cluster = "default/shop>payments.default.svc.cluster.local:80"

// shop is a mesh of two nodes, one of which may call the other, and the caller's proxy.
func shop(t *testing.T) (*plane, *proxy) {
	t.Helper()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	px := ads(t, a.conn, nil)
	px.until("configured", func() bool { return px.has[envoy.ClusterType][cluster] != "" })
	px.rest()
	return p, px
}

// rest reads until nothing more comes, and says how much came.
func (p *proxy) rest() int {
	n := 0
	for p.take(150*time.Millisecond) != nil {
		n++
	}
	return n
}

func TestChangeReachesTheProxy(t *testing.T) {
	t.Parallel()
	p, px := shop(t)
	p.write("shop.yaml", strings.Replace(shopYAML, "sa/shop", "sa/somebody-else", 1))
	px.until("no longer allowed, no longer told", func() bool { return px.has[envoy.ClusterType][cluster] == "" })
	p.write("shop.yaml", shopYAML)
	px.until("allowed again", func() bool { return px.has[envoy.ClusterType][cluster] != "" })
}

func TestBrokenFileKeepsTheLastGoodState(t *testing.T) {
	t.Parallel()
	p, px := shop(t)
	p.write("shop.yaml", strings.Replace(shopYAML, "port: 80,", "port: eighty,", 1))
	eventually(t, "it is found", func() bool { return len(p.status().Findings) > 0 })
	var all []string
	for _, f := range p.status().Findings {
		all = append(all, f.String())
	}
	contains(t, "the findings", strings.Join(all, "\n"),
		"shop.yaml:6 Service default/payments spec.ports[0].port: must be a whole number",
		"Service default/payments: it cannot be read as it is now, so it stays as it was at")
	if n := px.rest(); n > 0 {
		t.Errorf("%d responses were sent because of a broken file", n)
	}
	// Another file still takes effect.
	p.write("more.yaml", strings.ReplaceAll(shopYAML, "payments", "billing"))
	p.write("shop.yaml", shopYAML)
	eventually(t, "mended, and it is said that nobody is called billing", func() bool {
		fs := p.status().Findings // of the policy, and of the Service
		return len(fs) == 2 && fs[0].Code == "ISM0345" && fs[1].Code == "ISM0345" && p.status().Objects == 6
	})
}

func TestBrokenFileKeepsTheLastGoodStateAcrossARestart(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	before := p.status().Objects
	must(t, p.stop())
	p.write("mesh.yaml", strings.Replace(meshYAML, "5m", "five minutes", 1))
	p.write("shop.yaml", strings.Replace(shopYAML, "port: 80,", "port: eighty,", 1))
	p.start()
	var all []string
	for _, f := range p.status().Findings {
		all = append(all, f.String())
	}
	contains(t, "the findings", strings.Join(all, "\n"),
		"shop.yaml:6 Service default/payments spec.ports[0].port: must be a whole number",
		"Service default/payments: it cannot be read as it is now, so it stays as it was at",
		"Mesh cards: it cannot be read as it is now")
	if after := p.status().Objects; after != before || before == 0 {
		t.Errorf("%d objects in effect, %d before", after, before)
	}
}

func TestMeshOutlivesItsObject(t *testing.T) {
	t.Parallel()
	p, px := shop(t)
	p.write("mesh.yaml", strings.Replace(meshYAML, "cards.example", "thief.example", 1))
	eventually(t, "the trust domain stays", func() bool { return p.found("ISM0005") != "" })
	contains(t, "the finding", p.found("ISM0005"), "mesh.yaml:4", "spec.trustDomain", "begin a new mesh")
	p.write("mesh.yaml", meshYAML[strings.Index(meshYAML, "---\n"):])
	eventually(t, "the mesh stays", func() bool { return p.found("ISM0004") != "" })
	if s := p.status(); s.Mesh != "cards" || s.TrustDomain != "cards.example" {
		t.Errorf("it is now %s of %s", s.Mesh, s.TrustDomain)
	}
	if n := px.rest(); n > 0 {
		t.Errorf("%d responses were sent", n)
	}
	p.write("mesh.yaml", strings.Replace(meshYAML, "5m", "7m", 1))
	eventually(t, "a Mesh that is good again is used",
		func() bool { return p.found("ISM0004") == "" && p.found("ISM0005") == "" })
}

func TestNoMeshNoStart(t *testing.T) {
	t.Parallel()
	empty := newPlane(t, map[string]string{"shop.yaml": shopYAML})
	contains(t, "no Mesh", empty.refusal(), "there is no Mesh object in "+empty.cfg.ConfigDir, "docs/kinds/mesh.md")
	broken := newPlane(t, map[string]string{"mesh.yaml": strings.Replace(meshYAML, "trustDomain", "trustDomian", 1)})
	contains(t, "a broken Mesh", broken.refusal(), "no Mesh object could be read",
		"mesh.yaml:4 Mesh cards spec.trustDomain")
}
