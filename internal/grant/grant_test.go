package grant_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
)

func TestCovers(t *testing.T) {
	for _, test := range []struct {
		identities  string
		ns, account string
		want        bool
	}{
		{"default/payments", "default", "payments", true},
		{"default/payments", "default", "payments2", false},
		{"default/pay", "default", "payments", false},
		{"default/*", "default", "payments", true},
		{"default/*", "default2", "payments", false},
		{"*", "default", "payments", true},
		{"*", "isthmus-system", "gateway", false},
		{"isthmus-system/gateway", "isthmus-system", "gateway", true},
		{"a/b c/d", "c", "d", true},
		{"", "default", "payments", false},
		{"default/*", "default", "*", false},
		{"default/*", "default", "", false},
		{"/*", "", "payments", false},
		{"*/payments", "default", "payments", false},
	} {
		if got := (grant.Grant{Identities: strings.Fields(test.identities)}).Covers(test.ns,
			test.account); got != test.want {
			t.Errorf("%q grants %s/%s: %v", test.identities, test.ns, test.account, got)
		}
	}
}

func TestCheck(t *testing.T) {
	good := grant.Workload{Namespace: "default", Name: "web-*", ServiceAccount: "web"}
	with := func(bend func(w *grant.Workload)) grant.Grant {
		w := good
		bend(&w)
		return grant.Grant{Workloads: []grant.Workload{w}}
	}
	for what, test := range map[string]struct {
		grant grant.Grant
		role  snapshot.Role
		want  string
	}{
		"nothing": {grant.Grant{}, snapshot.RoleNode, ""},
		"several": {grant.Grant{Workloads: []grant.Workload{good}}, snapshot.RoleNode, ""},
		"a range": {
			grant.Grant{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}},
			snapshot.RoleNode, "",
		},
		"a range with a host": {
			grant.Grant{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
			snapshot.RoleNode, `addresses "10.0.0.1/24"`,
		},
		"loopback": {
			grant.Grant{Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}},
			snapshot.RoleNode, "address 127.0.0.1 is ",
		},
		"no range": {grant.Grant{Addresses: []netip.Prefix{{}}}, snapshot.RoleNode, "addresses"},
		"a gateway's": {
			grant.Grant{Workloads: []grant.Workload{good}},
			snapshot.RoleGateway,
			"a gateway has none",
		},
		"all names": {
			with(func(w *grant.Workload) { w.Name = "*" }), snapshot.RoleNode,
			"workload default/*",
		},
		"a star inside": {
			with(func(w *grant.Workload) { w.Name = "a-*-b" }), snapshot.RoleNode,
			"workload default/a-*-b",
		},
		"all namespaces": {
			with(func(w *grant.Workload) { w.Namespace = "*" }), snapshot.RoleNode,
			"workload */web-*",
		},
		"all accounts": {
			with(func(w *grant.Workload) { w.ServiceAccount = "*" }), snapshot.RoleNode,
			`service account "*"`,
		},
		"gateways' namespace": {
			with(func(w *grant.Workload) { w.Namespace = "isthmus-system" }), snapshot.RoleNode,
			"is for gateways",
		},
		"a bad label": {
			with(func(w *grant.Workload) { w.Labels = map[string]string{"app": "a b"} }),
			snapshot.RoleNode, `label "app"`,
		},
		"too many": {
			grant.Grant{Workloads: slices.Repeat([]grant.Workload{good}, 257)},
			snapshot.RoleNode,
			"at most 256",
		},
	} {
		err := test.grant.Check(test.role)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", what, err, test.want)
		}
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]grant.Workload{
		"default/web": {
			Namespace: "default", Name: "web", ServiceAccount: "web",
			Labels: map[string]string{"app": "web"},
		},
		"default/web-*": {
			Namespace: "default", Name: "web-*", ServiceAccount: "web",
			Labels: map[string]string{"app": "web"},
		},
		"default/web,sa=front": {
			Namespace: "default", Name: "web", ServiceAccount: "front",
			Labels: map[string]string{"app": "web"},
		},
		"pay/api-*,sa=pay,app=pay,version=v2": {
			Namespace: "pay", Name: "api-*", ServiceAccount: "pay",
			Labels: map[string]string{"app": "pay", "version": "v2"},
		},
		"default/web,app.kubernetes.io/name=shop": {
			Namespace: "default", Name: "web", ServiceAccount: "web",
			Labels: map[string]string{"app.kubernetes.io/name": "shop"},
		},
	} {
		got, err := grant.Parse(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s", text, err, diff)
		}
	}
	for _, text := range []string{
		"", "web", "/web", "default/", "default/*", "*/web", "a/b/c", "default/web,",
		"default/web,app", "default/web,=x", "default/web,sa=*", "default/web,app=a b", "isthmus-system/web",
	} {
		if got, err := grant.Parse(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

// workload is what an agent reports: name, account and labels.
func workload(name, account string, labels ...string) snapshot.Workload {
	w := snapshot.Workload{
		Namespace: "default", Name: name, ServiceAccount: account,
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
	}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		if w.Labels == nil {
			w.Labels = map[string]string{}
		}
		w.Labels[k] = v
	}
	return w
}

// What a workload is comes from the grant, whatever its node says.
func TestJudge(t *testing.T) {
	web, err := grant.Parse("default/web-*,sa=front,app=web,version=v2")
	if err != nil {
		t.Fatal(err)
	}
	exactly, err := grant.Parse("default/web-9,sa=front,app=nine")
	if err != nil {
		t.Fatal(err)
	}
	evil, whole := []string{"default/evil"}, []string{"default/*"}
	own := "app.kubernetes.io/name=evil app=evil"
	for what, test := range map[string]struct {
		identities []string
		reported   snapshot.Workload
		labels     string // that it has then; "refused"
		finding    string
	}{
		"its own":                    {evil, workload("evil", "evil", "app=evil"), own, ""},
		"without labels":             {evil, workload("evil", "evil"), own, ""},
		"one of several":             {evil, workload("evil-2", "evil"), own, ""},
		"another's label":            {evil, workload("evil", "evil", "app=b"), own, "ISM0242 app=b"},
		"another's second label":     {evil, workload("evil", "evil", "app=evil", "tier=b"), own, "ISM0242 tier=b"},
		"another's name":             {evil, workload("b", "evil", "app=evil"), "refused", "ISM0240"},
		"one of several, hashed":     {evil, workload("evil-7d4f9-x", "evil"), own, ""},
		"another's longer name":      {evil, workload("evil-twin", "evil"), "refused", "ISM0240"},
		"a longer name":              {evil, workload("evilb", "evil"), "refused", "ISM0240"},
		"another's identity":         {evil, workload("b", "b", "app=b"), "refused", "ISM0013"},
		"another's name and account": {evil, workload("evil", "b"), "refused", "ISM0013"},
		"granted name":               {nil, workload("web-1", "front"), "app=web version=v2", ""},
		"granted name, more labels": {
			nil, workload("web-1", "front", "app=web", "version=v3"), "app=web version=v2",
			"ISM0242 version=v3",
		},
		"granted name, exactly":  {nil, workload("web-9", "front"), "app=nine", ""},
		"granted, other account": {nil, workload("web-1", "web"), "refused", "ISM0013"},
		"granted, other name":    {nil, workload("front", "front"), "refused", "ISM0240"},
		"a whole namespace":      {whole, workload("a", "b", "app=c"), "app=c", ""},
		"a whole namespace, granted": {
			whole, workload("web-1", "front", "app=c"), "app=web version=v2",
			"ISM0242 app=c",
		},
	} {
		g := grant.Grant{
			Identities: test.identities, Workloads: []grant.Workload{web, exactly},
			Addresses: grant.Private(),
		}
		accepted, wrong := g.Judge("n1", []snapshot.Workload{test.reported})
		got := "refused"
		if len(accepted) == 1 {
			var labels []string
			for k, v := range accepted[0].Labels {
				labels = append(labels, k+"="+v)
			}
			slices.Sort(labels)
			got = strings.Join(labels, " ")
		}
		if got != test.labels {
			t.Errorf("%s: %s, want %s", what, got, test.labels)
		}
		code, said, _ := strings.Cut(test.finding, " ")
		switch {
		case code == "" && len(wrong) > 0:
			t.Errorf("%s: %v", what, wrong)
		case code != "" && (len(wrong) != 1 || string(wrong[0].Code) != code ||
			!strings.Contains(wrong[0].Message, said) || wrong[0].Remedy == ""):
			t.Errorf("%s: %v, want %s", what, wrong, test.finding)
		}
	}
}

func TestJudgeAddresses(t *testing.T) {
	ranges := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("fd00::/64")}
	for text, want := range map[string]string{
		"192.0.2.1": "", "fd00::1": "", "10.0.0.1": "ISM0241", "fd00:0:0:1::1": "ISM0241", "127.0.0.1": "ISM0014",
		"169.254.1.1": "ISM0014",
		"fe80::1":     "ISM0014", "0.0.0.0": "ISM0014", "224.0.0.1": "ISM0014", "::ffff:192.0.2.1": "ISM0014",
	} {
		w := workload("web", "web")
		w.Addresses = []netip.Addr{netip.MustParseAddr(text)}
		_, wrong := grant.Grant{
			Identities: []string{"*"},
			Addresses:  append(ranges, netip.MustParsePrefix("127.0.0.0/8")),
		}.Judge("n1", []snapshot.Workload{w})
		got := ""
		if len(wrong) > 0 {
			got = string(wrong[0].Code)
		}
		if got != want {
			t.Errorf("%s: %v, want %q", text, wrong, want)
		}
	}
	if accepted, _ := (grant.Grant{Identities: []string{"*"}}).Judge("n1",
		[]snapshot.Workload{workload("web", "web")}); len(accepted) > 0 {
		t.Error("without a granted address there is one")
	}
}

// How many workloads a node may have follows from what was granted.
func TestJudgeBounds(t *testing.T) {
	var reported []snapshot.Workload
	for i := range 2000 {
		w := workload(fmt.Sprintf("evil-%d", i), "evil")
		reported = append(reported, w)
	}
	one := grant.Workload{Namespace: "default", Name: "evil-7", ServiceAccount: "evil"}
	for what, test := range map[string]struct {
		grant grant.Grant
		want  int
	}{
		"an identity":       {grant.Grant{Identities: []string{"default/evil"}}, 32},
		"a whole namespace": {grant.Grant{Identities: []string{"default/*"}}, 32},
		"one by its name":   {grant.Grant{Workloads: []grant.Workload{one}}, 1},
		"both":              {grant.Grant{Identities: []string{"default/evil"}, Workloads: []grant.Workload{one}}, 33},
	} {
		test.grant.Addresses = grant.Private()
		accepted, wrong := test.grant.Judge("n1", reported)
		if len(accepted) != test.want || len(wrong) != 100 {
			t.Errorf("%s: %d accepted, %d findings; want %d, 100", what, len(accepted), len(wrong), test.want)
		}
	}
}

func TestGateway(t *testing.T) {
	info := func(inner, outer string) snapshot.GatewayInfo {
		return snapshot.GatewayInfo{
			ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr(inner),
			OuterAddress: netip.MustParseAddr(outer),
		}
	}
	first := info("10.0.0.2", "198.51.100.1")
	ranges := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("198.51.100.1/32")}
	for what, test := range map[string]struct {
		granted []netip.Prefix
		says    snapshot.GatewayInfo
		first   *snapshot.GatewayInfo
		want    string
	}{
		"at first":       {nil, first, nil, ""},
		"the same again": {nil, first, &first, ""},
		"another inner one": {
			nil, info("10.0.0.3", "198.51.100.1"), &first,
			"it joined with the inner address 10.0.0.2",
		},
		"another outer one":  {nil, info("10.0.0.2", "198.51.100.2"), &first, "the outer address 198.51.100.1"},
		"granted":            {ranges, first, nil, ""},
		"moved where it may": {ranges, info("10.0.0.3", "198.51.100.1"), &first, ""},
		"moved where it mayn't": {
			ranges, info("10.0.0.2", "198.51.100.2"), &first,
			"the address 198.51.100.2 was not granted",
		},
		"nowhere": {nil, info("0.0.0.0", "198.51.100.2"), nil, `the address 0.0.0.0, the unspecified`},
	} {
		err := grant.Grant{Addresses: test.granted}.Gateway(test.says, test.first)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", what, err, test.want)
		}
	}
}
