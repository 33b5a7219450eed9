package istioyaml_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
)

// outcome is a file in words: its objects, then what is broken ("!" closes), then the codes of its findings.
func outcome(f *istioyaml.File) string {
	var words []string
	for _, o := range f.Objects {
		words = append(words, o.Key.String())
	}
	for _, b := range f.Broken {
		w := "?" + b.Key.Kind + " " + b.Key.Namespace + "/" + b.Key.Name
		if b.Security {
			w = "!" + w[1:]
		}
		for _, k := range slices.Sorted(maps.Keys(b.Selector)) {
			w += " " + k + "=" + b.Selector[k]
		}
		words = append(words, w)
	}
	for _, fd := range f.Findings {
		words = append(words, string(fd.Code))
	}
	return strings.Join(words, "; ")
}

func decode(text string) *istioyaml.File {
	return istioyaml.Decode("x.yaml", []byte(text), schema.New().Validate, nil)
}

const deny = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
`

// What decides is the object: one that cannot be read costs itself alone, and closes what it selects as far as that is
// known.
func TestOneObject(t *testing.T) {
	ns := "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: one}\n"
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(deny) }
	for name, test := range map[string]struct{ text, want string }{
		"good": {deny, "AuthorizationPolicy shop/no"},
		"unknown field": {
			replace("action:", "actoin:"), "!AuthorizationPolicy shop/no app=web; ISM-SCH16",
		},
		"wrong value":       {replace("DENY", "DENIED"), "!AuthorizationPolicy shop/no app=web; ISM-SCH18"},
		"selector misspelt": {replace("selector:", "selektor:"), "!AuthorizationPolicy shop/no; ISM-SCH16"},
		"selector with more in it": {
			replace("{matchLabels:", "{x: y, matchLabels:"), "!AuthorizationPolicy shop/no; ISM-SCH16",
		},
		"label that cannot be": {
			replace("app: web", `app: "*"`, "DENY", "DENIED"), "!AuthorizationPolicy shop/no; ISM-SCH18",
		},
		"label of another type": {replace("app: web", "app: 1"), "!AuthorizationPolicy shop/no; ISM-SCH17"},
		"selector twice": {
			replace("  action:", "  selector: {matchLabels: {app: x}}\n  action:"),
			"!AuthorizationPolicy shop/no; ISM-SCH13",
		},
		"no name": {replace("name: no, ", ""), "!AuthorizationPolicy shop/ app=web; ISM-SCH15"},
		"name without quotes": {
			replace("name: no", "name: 42"), "!AuthorizationPolicy shop/ app=web; ISM-SCH17",
		},
		"name that cannot be": {
			replace("name: no", "name: NO"), "!AuthorizationPolicy shop/ app=web; ISM-SCH15",
		},
		"namespace that cannot be": {
			replace("namespace: shop", "namespace: SHOP"), "!AuthorizationPolicy /no app=web; ISM-SCH15",
		},
		"namespace is a number": {
			replace("namespace: shop", "namespace: 1"), "!AuthorizationPolicy /no app=web; ISM-SCH17",
		},
		"no namespace": {
			replace(", namespace: shop", "", "DENY", "NO"), "!AuthorizationPolicy default/no app=web; ISM-SCH18",
		},
		"no metadata": {
			replace("metadata: {name: no, namespace: shop}\n", ""), "!AuthorizationPolicy default/ app=web; ISM-SCH15",
		},
		"metadata twice": {
			replace("spec:", "metadata: {name: other, namespace: shop}\nspec:"),
			"!AuthorizationPolicy shop/; ISM-SCH13",
		},
		"kind twice": {replace("kind: A", "kind: Deployment\nkind: A"), "! shop/no; ISM-SCH13"},
		"marker forgotten": {
			"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {}\n" + deny, "! shop/; ISM-SCH13",
		},
		"no apiVersion": {
			replace("apiVersion: security.istio.io/v1\n", ""), "!AuthorizationPolicy shop/no app=web; ISM-SCH14",
		},
		"no kind":                    {replace("kind: AuthorizationPolicy\n", ""), "! shop/no app=web; ISM-SCH14"},
		"cut off in the first line":  {"apiVersion: security.ist", "! default/; ISM-SCH14"},
		"cut off in the second line": {"apiVersion: security.istio.io/v1\nkind: Auth", "!Auth default/; ISM-SCH14"},
		"kind in other letters":      {replace("kind:", "Kind:"), "!AuthorizationPolicy shop/no app=web; ISM-SCH14"},
		"kind misspelt": {
			replace("AuthorizationPolicy", "AuthorisationPolicy"), "!AuthorisationPolicy shop/no app=web; ISM-SCH14",
		},
		"group misspelt": {
			replace("security.istio.io", "security.istio.oi"), "!AuthorizationPolicy shop/no app=web; ISM-SCH14",
		},
		"another kind of the group": {replace("AuthorizationPolicy", "Service"), "! shop/no app=web; ISM-SCH14"},
		"no version": {
			replace("security.istio.io/v1", "security.istio.io", "AuthorizationPolicy", "Something"),
			"!Something shop/no app=web; ISM-SCH14",
		},
		"group cut short": {
			replace("security.istio.io", "security.istio"), "!AuthorizationPolicy shop/no app=web; ISM-SCH14",
		},
		"group of Istio itself": {
			replace("security.istio.io", "istio.io"), "!AuthorizationPolicy shop/no app=web; ISM-SCH14",
		},
		"group and kind misspelt": {
			replace("security.istio.io", "securty.istio.io", "AuthorizationPolicy", "AuthorizationPolcy"),
			"!AuthorizationPolcy shop/no app=web; ISM-SCH14",
		},
		"another version": {
			replace("io/v1", "io/v1alpha1"), "!AuthorizationPolicy shop/no app=web; ISM-SCH14",
		},
		"group forgotten": {
			replace("security.istio.io/v1", "v1"), "!AuthorizationPolicy shop/no app=web; ISM-SCH14",
		},
		"security kind not carried out": {
			replace("AuthorizationPolicy", "RequestAuthentication"),
			"!RequestAuthentication shop/no app=web; ISM-SCH20",
		},
		"unknown kind of the group": {
			replace("AuthorizationPolicy", "Something"), "!Something shop/no app=web; ISM-SCH14",
		},
		"another mesh's policy": {replace("security.istio.io/v1", "policy.linkerd.io/v1alpha1"), "ISM0203"},
		"OpenShift's security": {
			"apiVersion: security.openshift.io/v1\nkind: SecurityContextConstraints\nmetadata: {name: x}\n", "ISM0203",
		},
		"Kubernetes' network policy": {
			"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\n", "ISM0203",
		},
		"Knative's Service": {
			"apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: x}\n", "ISM0203",
		},
		"Service of another version": {
			"apiVersion: v2\nkind: Service\nmetadata: {name: x}\n", "?Service default/x; ISM-SCH14",
		},
		"Istio, not carried out": {
			"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\n", "ISM0204",
		},
		"Istio, another group": {
			"apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: x}\n", "ISM0204",
		},
		"ours misspelt": {
			"apiVersion: isthmus.dev/v1alpha1\nkind: MeshPer\nmetadata: {name: x}\n", "?MeshPer default/x; ISM-SCH14",
		},
		"Deployment": {
			"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {a: b, a: c}\n", "ISM0203",
		},
		"custom resource definition": {
			"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: authorizationpolicies.security.istio.io}\n",
			"ISM0203",
		},
		"values of a chart": {"replicas: 3\nimage: {tag: x} # AuthorizationPolicy\n", "? /; ISM0203"},
		"a chart's own file": {
			"apiVersion: v2\nname: shop\nversion: 0.1.0\ndependencies: [{name: x}]\n", "? /; ISM0203",
		},
		"values of a chart, not YAML": {"replicas: [3\n", "? default/; ISM-SCH10"},
		"template": {
			"{{- if .Values.x }}\napiVersion: apps/v1\nkind: Deployment\n{{- end }}\n", "ISM0203",
		},
		"template without a kind": {"{{- range .Values.x }}\n{{ toYaml . }}\n{{- end }}\n", "? /; ISM0203"},
		"template of a policy": {
			"{{- if .Values.x }}\n" + replace("namespace: shop",
				"namespace: {{ .Release.Namespace }}") + "{{- end }}\n",
			"!AuthorizationPolicy default/no; ISM-SCH10",
		},
		"template in place of an object": {"{{- include \"policy\" . }}\n", "? /; ISM0203"},
		"unknown and nowhere": {
			"policy:\n  " + strings.ReplaceAll(deny, "\n", "\n  "),
			"! shop/; ISM-SCH10",
		},
		"beside metadata": {
			"metadata: {name: x}\npolicy:\n  " + strings.ReplaceAll(deny, "\n", "\n  "), "! shop/; ISM-SCH10",
		},
		"merged": {
			"x: &x {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: no, namespace: shop}}\n<<: *x\n",
			"! shop/; ISM-SCH10",
		},
		"head merged": {
			"x: &x {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy}\n<<: *x\nmetadata: {name: no, namespace: shop}\n",
			"! shop/; ISM-SCH10",
		},
		"head with tags": {
			replace("security.istio.io", "!x security.istio.io", "kind: ", "kind: !x "), "! shop/; ISM-SCH10",
		},
		"head of lists": {
			"apiVersion: [security.istio.io/v1]\nkind: [AuthorizationPolicy]\nmetadata: {name: no, namespace: shop}\n",
			"! shop/; ISM-SCH10",
		},
		"keys of the head misspelt": {
			replace("apiVersion:", "apiVersions:", "kind:", "kinds:"), "! shop/; ISM-SCH10",
		},
		"not YAML, letters escaped": {
			replace("security.istio.io/v1", `"security.istio.\u0069o/v1"`, "AuthorizationPolicy",
				`"Authorization\x50olicy"`, "[{", "[[{"),
			"!AuthorizationPolicy shop/no; ISM-SCH10",
		},
		"runs into a foreign one": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n  " + strings.ReplaceAll(deny, "\n", "\n  "),
			"! shop/; ISM-SCH10",
		},
		"an older kind of Istio's": {
			"apiVersion: authentication.istio.io/v1alpha1\nkind: Policy\nmetadata: {name: no, namespace: shop}\n",
			"!Policy shop/no; ISM-SCH14",
		},
		"a chart's values that name one": {
			"authorizationPolicy: {enabled: true}\nmeta: {namespace: shop}\n", "? /; ISM0203",
		},
		"a ConfigMap that holds one": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: |\n    " +
				strings.ReplaceAll(deny, "\n", "\n    "),
			"ISM0203",
		},
		"not YAML, very many namespaces": {
			replace("rules: [", "rules: [["+manyNamespaces()), "!AuthorizationPolicy /no; ISM-SCH10",
		},
		"null":          {"null\n", ""},
		"tilde":         {"~", ""},
		"nothing":       {"---\n---\n# AuthorizationPolicy\n", ""},
		"empty mapping": {"{}", "? /; ISM0203"},
		"number":        {"7", "? /; ISM0203"},
		"text":          {"text", "? /; ISM0203"},
		"list":          {"[1, {}, []]", "? /; ISM0203"},
		"list of objects": {
			"- " + strings.ReplaceAll(deny, "\n", "\n  "), "!AuthorizationPolicy shop/; ISM-SCH10",
		},
		"not YAML, line by line": {replace("rules: [", "rules: [["), "!AuthorizationPolicy shop/no; ISM-SCH10"},
		"not YAML, several namespaces": {
			replace("rules: [", "namespace: other\nrules: [["),
			"!AuthorizationPolicy other/no; !AuthorizationPolicy shop/no; ISM-SCH10",
		},
		"not YAML, namespace unreadable": {
			replace("namespace: shop", "namespace: ["), "!AuthorizationPolicy /no; ISM-SCH10",
		},
		"not YAML, no kind": {
			replace("kind: AuthorizationPolicy", "kind AuthorizationPolicy", "namespace: shop", "namespace: shop2"),
			"! shop2/no; ISM-SCH10",
		},
		"not YAML, a Service": {
			"apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: [", "?Service default/x; ISM-SCH10",
		},
		"not UTF-8": {
			replace("action:", "# \xff\n  action:"), "!AuthorizationPolicy shop/no; ISM-SCH11",
		},
		"UTF-16":               {utf16(deny), "!AuthorizationPolicy shop/no; ISM-SCH11"},
		"a key that is a list": {replace("action: DENY", "[a]: b"), "!AuthorizationPolicy shop/no; ISM-SCH10"},
		"a key that is a number": {
			replace("action: DENY", "1: b"), "!AuthorizationPolicy shop/no app=web; ISM-SCH16",
		},
		"bomb of aliases": {
			replace("action: DENY",
				"a: &a [x,x,x,x,x,x,x,x,x,x]\n  b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n  c: [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]"),
			"!AuthorizationPolicy shop/no; ISM-SCH12",
		},
		"alias of itself": {
			replace("action: DENY", "a: &a [*a]"), "!AuthorizationPolicy shop/no; ISM-SCH12",
		},
		"head behind aliases": {
			"apiVersion: &v security.istio.io/v1\nkind: &k AuthorizationPolicy\nmetadata: {name: no, namespace: &n shop, annotations: {a: *n}}\nspec: {action: *k}\n",
			"!AuthorizationPolicy shop/no; ISM-SCH18",
		},
		"too large": {
			replace("paths: [/admin]", "paths: [\"/"+strings.Repeat("x", 1<<20)+"\"]"),
			"!AuthorizationPolicy shop/no; ISM-SCH12",
		},
		"ConfigMap too large": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: \"" + strings.Repeat("x", 1<<20) + "\"}\n",
			"ISM0203",
		},
		"twice": {deny + "---\n" + deny, "!AuthorizationPolicy shop/no; ISM-SCH21; ISM-SCH21"},
		"twice, one broken": {
			deny + "---\n" + replace("DENY", "NO"),
			"!AuthorizationPolicy shop/no app=web; !AuthorizationPolicy shop/no; ISM-SCH21; ISM-SCH18",
		},
		"two documents between two markers": {deny + "...\n" + ns[4:], "AuthorizationPolicy shop/no; Namespace one"},
		"directive":                         {"%YAML 1.2\n---\n" + deny, "AuthorizationPolicy shop/no"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := outcome(decode(test.text)); got != test.want {
				t.Errorf("got\n  %s\nwant\n  %s\n%v", got, test.want, decode(test.text).Findings)
			}
			f := decode(test.text + "\n" + ns)
			if !slices.ContainsFunc(f.Objects, func(o *snapshot.Object) bool { return o.Key.Name == "one" }) &&
				name != "UTF-16" && name != "two documents between two markers" {
				t.Errorf("its neighbour is lost: %s", outcome(f))
			}
		})
	}
}

func manyNamespaces() string {
	var b strings.Builder
	for n := range istioyaml.MaxFindings {
		fmt.Fprintf(&b, "\n  namespace: n%d", n)
	}
	return b.String()
}

func utf16(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteString(string(r) + "\x00")
	}
	return b.String()
}

// TestManyBroken: what is broken a million times costs no more than what is broken often.
func TestManyBroken(t *testing.T) {
	f := decode(strings.Repeat("---\nkind: [\n", 50_000) + "---\n" + deny)
	if len(f.Findings) != istioyaml.MaxFileFindings+1 || len(f.Broken) != 1 || len(f.Objects) != 1 {
		t.Errorf("%d findings, %d broken, %d objects", len(f.Findings), len(f.Broken), len(f.Objects))
	}
	if last := f.Findings[0]; last.Line != 0 || !strings.Contains(last.Message, "49000 more") {
		t.Errorf("the first finding: %s", last)
	}
	f = decode(strings.Repeat("---\nkind AuthorizationPolicy\na: [\n", 50_000))
	if len(f.Findings) != istioyaml.MaxFileFindings+1 || len(f.Broken) != istioyaml.MaxFindings {
		t.Errorf("%d findings, %d broken", len(f.Findings), len(f.Broken))
	}
}

// Lists come from kubectl and from the API; each of their objects stands for itself.
func TestLists(t *testing.T) {
	item := strings.ReplaceAll(deny, "\n", "\n  ")
	bad := strings.Replace(item, "DENY", "NO", 1)
	for name, test := range map[string]struct{ text, want string }{
		"one is broken": {
			"apiVersion: v1\nkind: List\nitems:\n- " + item + "\n- " + strings.Replace(bad, "name: no", "name: bad", 1),
			"AuthorizationPolicy shop/no; !AuthorizationPolicy shop/bad app=web; ISM-SCH18",
		},
		"of one kind": {
			"apiVersion: v1\nkind: NamespaceList\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n",
			"Namespace a; Namespace b",
		},
		"of policies": {
			"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList\nitems:\n- metadata: {name: a}\n  spec: {action: NO}\n",
			"!AuthorizationPolicy default/a; ISM-SCH18",
		},
		"of foreigners": {
			"apiVersion: apps/v1\nkind: DeploymentList\nitems: [{metadata: {name: a}}, {metadata: {name: b}}]\n",
			"ISM0203",
		},
		"empty": {"apiVersion: v1\nkind: List\nitems: []\n", ""},
		"in a list": {
			"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items:\n  - " +
				strings.ReplaceAll(deny, "\n", "\n    "),
			"AuthorizationPolicy shop/no",
		},
		"in itself":   {"&l\napiVersion: v1\nkind: List\nitems: [*l]\n", "ISM0203"},
		"items twice": {"apiVersion: v1\nkind: List\nitems: []\nitems:\n- " + item, "! shop/; ISM-SCH10"},
		"items no list": {
			"apiVersion: v1\nkind: List\nitems:\n  a:\n    " + strings.ReplaceAll(deny, "\n", "\n    "),
			"! shop/; ISM-SCH10",
		},
		"misspelt":       {"apiVersion: v1\nkind: list\nitems:\n- " + item, "! shop/; ISM-SCH10"},
		"without a kind": {"items:\n- " + item, "! shop/; ISM-SCH10"},
		"behind aliases": {
			"apiVersion: v1\nx: &l [{apiVersion: v1, kind: Namespace, metadata: {name: a}}]\nkind: List\nitems: *l\n",
			"Namespace a",
		},
		"without items": {"apiVersion: v1\nkind: List\n", "ISM0203"},
		"of nothing":    {"apiVersion: v1\nkind: List\nitems: [null, 1, [], ~]\n", "ISM0203"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := outcome(decode(test.text)); got != test.want {
				t.Errorf("got\n  %s\nwant\n  %s\n%v", got, test.want, decode(test.text).Findings)
			}
		})
	}
}

// JSON is read as JSON is meant, whatever YAML thinks of it.
func TestJSON(t *testing.T) {
	policy := "{\"apiVersion\": \"security.istio.io/v1\",\n\t\"kind\": \"AuthorizationPolicy\",\n\t\"metadata\": {\"name\": \"no\", \"annotations\": {\"a\": \"%s\"}},\n\t\"spec\": {\"action\": \"DENY\", \"rules\": [{}]}}\n"
	for name, test := range map[string]struct{ text, want string }{
		"tabs":             {fmt.Sprintf(policy, "x"), "AuthorizationPolicy default/no"},
		"surrogates":       {fmt.Sprintf(policy, `\ud83d\ude42 \\ud83d \/`), "AuthorizationPolicy default/no"},
		"half a surrogate": {fmt.Sprintf(policy, `\ud83d`), "!AuthorizationPolicy default/; ISM-SCH10"},
		"the other half":   {fmt.Sprintf(policy, `\ude42`), "!AuthorizationPolicy default/; ISM-SCH10"},
		"two, one after the other": {
			fmt.Sprintf(policy,
				"x") + "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"a\"}}",
			"AuthorizationPolicy default/no; Namespace a",
		},
		"key twice": {
			"{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"a\", \"labels\": {\"a\": \"b\", \"a\": \"c\"}}}",
			"?Namespace /a; ISM-SCH13",
		},
		"cut off":                   {fmt.Sprintf(policy, "x")[:120], "!AuthorizationPolicy default/; ISM-SCH10"},
		"deep":                      {strings.Repeat("[", 100_000), "? default/; ISM-SCH10"},
		"null":                      {"null", ""},
		"a list of objects in JSON": {"[" + fmt.Sprintf(policy, "x") + "]", "!AuthorizationPolicy default/; ISM-SCH10"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := outcome(decode(test.text)); got != test.want {
				t.Errorf("got\n  %s\nwant\n  %s\n%v", got, test.want, decode(test.text).Findings)
			}
		})
	}
	o := decode(fmt.Sprintf(policy, "x")).Objects[0]
	if line := o.Origin.LineOf("spec.action"); line != 4 {
		t.Errorf("spec.action at line %d, want 4", line)
	}
}

// A fault of ours at one object is a finding on that object, and closes if it is of a security kind.
func TestFaultAtOneObject(t *testing.T) {
	failing := func(string, map[string]any) []finding.Finding { panic("planted") }
	text := "apiVersion: isthmus.dev/v1alpha1\nkind: MeshPeer\nmetadata: {name: retail}\nspec: {}\n---\n" + deny
	f := istioyaml.Decode("x.yaml", []byte(text), failing, nil)
	if got, want := outcome(f), "AuthorizationPolicy shop/no; ?MeshPeer /retail; ISM0202"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if fd := f.Findings[0]; fd.Line != 1 || fd.Object.String() != "MeshPeer retail" ||
		!strings.Contains(fd.Message, "planted") {
		t.Errorf("finding %s", fd)
	}
}

// What Pick takes from a text is read again as it was.
func TestPick(t *testing.T) {
	text := deny +
		"---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a, annotations: {x: \"\\u202e\\U0001F642 é \\x7f\"}}}\n- {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n---\nkind: [\n"
	wanted := map[snapshot.Key]bool{
		{Kind: "AuthorizationPolicy", Namespace: "shop", Name: "no"}: true, {Kind: "Namespace", Name: "a"}: true,
	}
	picked := decode(string(istioyaml.Pick([]byte(text), func(k snapshot.Key) bool { return wanted[k] })))
	if got, want := outcome(picked), "AuthorizationPolicy shop/no; Namespace a"; got != want {
		t.Fatalf("got %s, want %s: %v", got, want, picked.Findings)
	}
	before := decode(text)
	for i, o := range picked.Objects {
		if got, want := fmt.Sprint(o.Value), fmt.Sprint(before.Objects[i].Value); got != want {
			t.Errorf("picked\n%s\nwas\n%s", got, want)
		}
	}
}
