package hostile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/source/file"
	"isthmus.dev/isthmus/internal/view"
	"isthmus.dev/isthmus/internal/vip"
)

var now = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// object is one hostile document: what was done to it, and its text.
type object struct {
	kind, what string
	text       string
	beside     string // another document in the same scene, if any
}

func (o object) String() string {
	text := o.text
	if len(text) > 1000 {
		text = text[:500] + " … " + text[len(text)-500:]
	}
	if o.beside != "" {
		text += "\nbeside " + clip(o.beside)
	}
	return fmt.Sprintf("%s with %s\n%s", o.kind, o.what, text)
}

// objectOf is a document as an object to read.
func objectOf(kind string, doc any, what string) object {
	body, err := json.Marshal(doc)
	if err != nil {
		panic(err) // of strings, numbers, maps and lists
	}
	return object{kind: kind, what: what, text: strings.ReplaceAll(string(body), notUTF8, "\xff")}
}

var validate = schema.New().Validate

// accepted says whether reading takes the document.
func (o object) accepted() bool {
	f := istioyaml.Decode("in.yaml", []byte(place(o.text, 0)), validate, nil)
	return len(f.Broken) == 0 && len(f.Objects) > 0
}

// place makes a document that of one scene among many.
func place(text string, scene int) string {
	text = strings.ReplaceAll(text, token, fmt.Sprintf("g%04d", scene))
	return strings.ReplaceAll(text, "ROOTS", strings.ReplaceAll(string(rootOf(scene)), "\n", `\n`))
}

// resources are what two Envoys, a node's and a gateway's, are told of scenes in which each object stands among sound
// ones. Scene numbers begin with first.
func resources(t *testing.T, objects []object, first int) []*envoy.Resource {
	t.Helper()
	mesh, findings := compile.Mesh(world(t, objects, first))
	if mesh == nil {
		return nil
	}
	for _, f := range findings {
		if slices.Contains([]finding.Code{"ISM0202", "ISM0205", "ISM0206"}, f.Code) { // faults of Isthmus's own
			t.Errorf("compiling %s: %s", objects, f)
		}
	}
	byName := map[[2]string]*envoy.Resource{}
	var out []*envoy.Resource
	add := func(r *envoy.Resource) {
		if key := [2]string{r.Type, r.Name}; byName[key] == nil {
			byName[key] = r
			out = append(out, r)
		}
	}
	for _, proxy := range []string{"n1", "gw"} {
		v := view.For(mesh, proxy)
		if v == nil {
			continue
		}
		built := envoy.Build(v)
		for _, typ := range envoy.Types {
			for _, r := range built.ByType[typ] {
				add(r)
			}
		}
		for _, set := range built.Sets {
			add(envoy.EndpointsFor(v, set, mesh.Endpoints))
		}
	}
	return out
}

// world is a snapshot of the scenes.
func world(t *testing.T, objects []object, first int) *snapshot.Snapshot {
	t.Helper()
	var docs []string
	snap := &snapshot.Snapshot{
		Time: now, Roots: rootOf(-1), VIPs: map[string]netip.Addr{}, Peers: map[string]snapshot.PeerState{},
		PeeringAddresses: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:15013")},
		Registry: &snapshot.Registry{Nodes: []snapshot.Node{
			{Name: "gw", Role: snapshot.RoleGateway, Gateway: &snapshot.GatewayInfo{
				ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr("10.0.0.2"),
				OuterAddress: netip.MustParseAddr("192.0.2.1"),
			}},
			{Name: "n1", Role: snapshot.RoleNode, Builtin: envoy.BuiltinVersion()},
		}},
	}
	mesh := seeds["Mesh"][0]
	for i, o := range objects {
		scene := first + i
		if o.beside != "" {
			docs = append(docs, place(o.beside, scene))
		}
		for _, k := range kind.All {
			switch {
			case k.Name == "Mesh" && o.kind == "Mesh":
				mesh = place(o.text, scene)
			case k.Name == "Mesh":
			case k.Name == o.kind:
				docs = append(docs, place(o.text, scene))
				if k.Name == "AuthorizationPolicy" {
					docs = append(docs, place(callers, scene))
				}
			default:
				docs = append(docs, place(seedText(k.Name), scene))
			}
		}
		ns := fmt.Sprintf("g%04d", scene)
		high, low := byte(scene>>8), byte(scene)
		snap.Registry.Workloads = append(snap.Registry.Workloads, snapshot.Workload{
			Name: "web", Namespace: ns, ServiceAccount: "web", Node: "n1", Labels: map[string]string{"app": "web"},
			Netns: "/run/netns/" + ns, Ready: true,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, high, low})},
			Ports: []snapshot.WorkloadPort{
				{Name: "http", Number: 8080}, {Name: "tcp-a", Number: 9000}, {Name: "tcp-b", Number: 9001},
			},
		})
		snap.Peers[ns] = snapshot.PeerState{Roots: rootOf(scene), BundleTime: now}
	}
	snap.Config = load(t, append(docs, mesh))
	for n, h := range snap.Config.Hosts() {
		b := vip.Range.Addr().As4()
		snap.VIPs[h.Name] = netip.AddrFrom4([4]byte{b[0], b[1], byte(1 + n>>8), byte(n)})
	}
	return snap
}

// callers lets in the callers of one scene, whatever the policy under test says.
const callers = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: g0000}
spec: {rules: [{from: [{source: {namespaces: [g0000]}}]}]}
`

// seedText is what stands in a scene for a kind that is not under test.
func seedText(kind string) string {
	if kind == "AuthorizationPolicy" {
		return callers
	}
	return seeds[kind][0]
}

// load reads documents as the control plane reads a folder.
func load(t *testing.T, docs []string) *snapshot.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus-hostile-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for i := 0; len(docs) > 0; i++ {
		var b bytes.Buffer
		for b.Len() < 4<<20 && len(docs) > 0 { // files have a bound
			fmt.Fprintf(&b, "---\n%s\n", docs[0])
			docs = docs[1:]
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("in-%04d.yaml", i)), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := file.LoadDir(dir, validate)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

var roots sync.Map

// rootOf is the root certificate of a scene's peer; of scene -1, the mesh's own.
func rootOf(scene int) []byte {
	if v, ok := roots.Load(scene); ok {
		return v.([]byte)
	}
	td := fmt.Sprintf("g%04d.example", scene)
	if scene < 0 {
		td = "own.example"
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: td}, URIs: []*url.URL{{Scheme: "spiffe", Host: td}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(50, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	v, _ := roots.LoadOrStore(scene, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return v.([]byte)
}

// fingerprint is equal for objects that an Envoy cannot tell apart.
func fingerprint(rs []*envoy.Resource) [32]byte {
	h := sha256.New()
	for _, r := range rs {
		h.Write([]byte(r.Type + r.Name + r.Version))
	}
	return [32]byte(h.Sum(nil))
}

// constraints checks a resource, and all that is packed inside, against the constraints that Envoy's API writes down.
func constraints(r *envoy.Resource) error {
	return unpack(&anypb.Any{TypeUrl: r.Type, Value: r.Body})
}

func unpack(a *anypb.Any) error {
	m, err := a.UnmarshalNew()
	if err != nil {
		return err
	}
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			return err
		}
	}
	return inside(m.ProtoReflect())
}

func inside(m protoreflect.Message) (err error) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap() && fd.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey,
				v protoreflect.Value,
			) bool {
				err = one(v.Message())
				return err == nil
			})
		case fd.IsList() && fd.Message() != nil:
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = one(v.List().Get(i).Message())
			}
		case !fd.IsMap() && !fd.IsList() && fd.Message() != nil:
			err = one(v.Message())
		}
		return err == nil
	})
	return err
}

func one(m protoreflect.Message) error {
	if a, ok := m.Interface().(*anypb.Any); ok {
		return unpack(a)
	}
	return inside(m)
}
