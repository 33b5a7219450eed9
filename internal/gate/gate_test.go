package gate

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func mesh(name, trustDomain string) *v1alpha1.Mesh {
	return &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MeshSpec{TrustDomain: trustDomain}}
}

func service(name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
}

func holding(objects ...*snapshot.Object) *snapshot.Snapshot {
	var c snapshot.Change
	for _, o := range objects {
		c.Put(o)
	}
	return &snapshot.Snapshot{Config: (&snapshot.Config{}).With(c)}
}

func inFile(value metav1.Object, seen time.Time) *snapshot.Object {
	return snapshot.NewObject(value, snapshot.Origin{
		Source: snapshot.SourceFile, File: "a.yaml", Line: 3,
		Fields:    snapshot.FieldsOf(map[string]int{"spec.trustDomain": 4}),
		FirstSeen: seen,
	})
}

func byToken(value metav1.Object) *snapshot.Object {
	return snapshot.NewObject(value, snapshot.Origin{Source: snapshot.SourceToken, FirstSeen: noon})
}

func codes(fs []finding.Finding) (out []string) {
	for _, f := range fs {
		out = append(out, string(f.Code))
	}
	return out
}

func keys(c *snapshot.Config) string {
	var out []string
	for o := range c.Objects.All() {
		out = append(out, o.Key.String())
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// A running mesh keeps its Mesh and its trust domain. Whatever else a change says is let in.
func TestMeshStays(t *testing.T) {
	old := inFile(mesh("cards", "cards.example"), noon)
	now := holding(old, inFile(service("gone"), noon))
	for name, tt := range map[string]struct {
		next  *snapshot.Snapshot
		codes []string
		want  string
	}{
		"gone":      {holding(inFile(service("web"), noon)), []string{"ISM0004"}, "Mesh cards, Service default/web"},
		"as it was": {holding(old), nil, "Mesh cards"},
		"changed": {
			holding(inFile(&v1alpha1.Mesh{
				ObjectMeta: metav1.ObjectMeta{Name: "cards"},
				Spec:       v1alpha1.MeshSpec{TrustDomain: "cards.example", Domain: "x"},
			}, noon)), nil, "Mesh cards",
		},
		"another trust domain": {
			holding(inFile(mesh("cards", "else.example"), noon), inFile(service("web"), noon)),
			[]string{"ISM0005"},
			"Mesh cards, Service default/web",
		},
		"another name and trust domain": {
			holding(inFile(mesh("other", "else.example"), noon)),
			[]string{"ISM0005"},
			"Mesh cards",
		},
		"another name": {holding(inFile(mesh("other", "cards.example"), noon)), nil, "Mesh other"},
	} {
		change := tt.next.Config.Objects.ChangeSince(now.Config.Objects)
		v := Review(now, change, Who{Source: snapshot.SourceFile})
		after := v.Admit(now.Config, tt.next.Config)
		if got := codes(v.Findings); !slices.Equal(got, tt.codes) || keys(after) != tt.want {
			t.Errorf("%s: %v, left are %s; want %v, %s", name, got, keys(after), tt.codes, tt.want)
		}
		if m := after.Mesh(); m.Spec.TrustDomain != "cards.example" {
			t.Errorf("%s: the trust domain is %s", name, m.Spec.TrustDomain)
		}
		if len(after.Findings) != len(v.Findings) {
			t.Errorf("%s: the configuration has %v", name, after.Findings)
		}
	}
	v := Review(now, holding(inFile(mesh("cards", "else.example"),
		noon)).Config.Objects.ChangeSince(now.Config.Objects), Who{Source: snapshot.SourceFile})
	if f := v.Findings[0]; f.File != "a.yaml" || f.Line != 7 || f.Field != "spec.trustDomain" ||
		f.Severity != finding.Error {
		t.Errorf("%+v", f)
	}
	first := Review(&snapshot.Snapshot{Config: &snapshot.Config{}}, now.Config.Objects.ChangeSince(nil),
		Who{Source: snapshot.SourceFile})
	if len(first.Refused)+len(first.Findings) > 0 {
		t.Errorf("the first configuration: %+v", first)
	}
}

// Of a file and a peering by token of one name the answer is the same whichever comes second.
func TestPeersKeepTheirNames(t *testing.T) {
	root, err := os.ReadFile("../stories/testdata/roots/retail.pem")
	if err != nil {
		t.Fatal(err)
	}
	peer := func(trustDomain string) *v1alpha1.MeshPeer {
		return &v1alpha1.MeshPeer{ObjectMeta: metav1.ObjectMeta{Name: "retail"}, Spec: v1alpha1.MeshPeerSpec{
			TrustDomain: trustDomain, Bundle: v1alpha1.PeerBundle{Inline: string(root)},
		}}
	}
	made := byToken(peer("retail.example"))
	for name, tt := range map[string]struct {
		file *snapshot.Object
		code string
		wins *snapshot.Object
	}{
		"the same mesh": {file: inFile(peer("retail.example"), noon.Add(time.Hour)), code: "ISM0003"},
		"another mesh": {
			file: inFile(peer("bank.example"), noon.Add(time.Hour)), code: "ISM0270",
			wins: made,
		},
		"another mesh, of no age":     {file: inFile(peer("bank.example"), time.Time{}), code: "ISM0270", wins: made},
		"another mesh, but the older": {file: inFile(peer("bank.example"), noon.Add(-time.Hour)), code: "ISM0003"},
	} {
		wins := tt.wins
		if wins == nil {
			wins = tt.file
		}
		for which, order := range map[string][2]*snapshot.Object{
			"file first":  {tt.file, made},
			"file second": {made, tt.file},
		} {
			now, next := holding(order[0]), holding(order[1])
			var change snapshot.Change
			change.Put(order[1])
			v := Review(now, change, Who{Source: order[1].Origin.Source})
			got := v.Admit(now.Config, next.Config).Objects.Get(wins.Key)
			if !slices.Equal(codes(v.Findings), []string{tt.code}) || got.Hash != wins.Hash ||
				got.Origin.Source != wins.Origin.Source || v.Refuses(wins.Key) != (wins == order[0]) {
				t.Errorf("%s, %s: %+v; in force is that of source %s", name, which, v, got.Origin.Source)
			}
			if f := v.Findings[0]; f.File != "a.yaml" || f.Line != 3 || f.Remedy == "" {
				t.Errorf("%s, %s: %+v", name, which, f)
			}
		}
	}
	v := Review(holding(made), snapshot.PutAll(peer("retail.example")), Who{Source: snapshot.SourceToken})
	if len(v.Findings) != 1 { // of unknown origin, hence not by token
		t.Errorf("%+v", v)
	}
}

// What a change brings about is what was not wrong before, and nothing of what was.
func TestEffects(t *testing.T) {
	policy := func(name string) *v1alpha1.FederatedExport {
		return &v1alpha1.FederatedExport{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec: v1alpha1.FederatedExportSpec{
				Service: "none", Port: 80, To: []v1alpha1.ExportTo{{Peer: "nobody", Rules: []v1alpha1.ExportRule{{}}}},
			},
		}
	}
	now := holding(inFile(mesh("cards", "cards.example"), noon), inFile(policy("old"), noon))
	now.Registry, now.Time = &snapshot.Registry{}, noon
	got := Effects(now, snapshot.PutAll(policy("new")))
	if len(got) == 0 {
		t.Fatal("an export of a service that is not there, to a peer that is not there, brings nothing about")
	}
	for _, f := range got {
		if f.Object.String() != "FederatedExport default/new" {
			t.Errorf("it brings about %s", f)
		}
	}
	if again := Effects(now, snapshot.PutAll(policy("old"))); len(again) == 0 {
		t.Error("an object that stands already brings nothing about")
	}
}

// What an API brings in is held to the checks that files are held to.
func TestObjectsAreChecked(t *testing.T) {
	peer := func(address string) *snapshot.Object {
		return byToken(&v1alpha1.MeshPeer{
			ObjectMeta: metav1.ObjectMeta{Name: "bank"},
			Spec:       v1alpha1.MeshPeerSpec{TrustDomain: "bank.example", GatewayAddresses: []string{address}},
		})
	}
	bank := Who{Source: snapshot.SourceToken, Caller: "peer bank"}
	for name, tt := range map[string]struct {
		peer *snapshot.Object
		who  Who
		want []string
	}{
		"good":          {peer("192.0.2.1:15443"), bank, nil},
		"no address":    {peer("192.0.2.1"), bank, []string{"ISM-SCH01"}},
		"reserved":      {peer("127.0.0.1:15443"), bank, []string{"ISM0210"}},
		"let in before": {peer("127.0.0.1:15443"), Who{Source: snapshot.SourceToken, AlreadyAdmitted: true}, nil},
		"from nobody":   {peer("127.0.0.1:15443"), Who{Source: snapshot.SourceToken}, []string{"ISM0210"}},
	} {
		var c snapshot.Change
		c.Put(tt.peer)
		v := Review(holding(inFile(mesh("shop", "shop.example"), noon)), c, tt.who)
		if got := codes(v.Findings); !slices.Equal(got, tt.want) || v.Refuses(tt.peer.Key) != (len(tt.want) > 0) {
			t.Errorf("%s: %v, refused %v; want %v", name, v.Findings, v.Refused, tt.want)
		}
	}
}
