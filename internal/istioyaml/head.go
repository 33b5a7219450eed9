package istioyaml

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/strictyaml"
)

// head is what a document claims to be. It is read first and leniently, so that an object can be identified, and what
// it may have forbidden be closed, even if the rest is invalid.
type head struct {
	apiVersion, kind string // empty if unknown
	name             string
	namespace        string // as written; empty if absent
	twice            string // a key of the head that occurs twice, which makes the head ambiguous
	twiceLine        int
	misspelt         string // apiVersion or kind in wrong letter case
	object           bool   // it has metadata, like every object
}

// headOf reads the head of a mapping.
func headOf(n *yaml.Node) head {
	var h head
	seen := map[string]bool{}
	each(n, func(key string, line int, v *yaml.Node) {
		is := key
		for _, want := range []string{"apiVersion", "kind"} {
			if key != want && strings.EqualFold(key, want) {
				is, h.misspelt = want, key
			}
		}
		switch is {
		case "apiVersion":
			h.apiVersion = plain(v)
		case "kind":
			h.kind = plain(v)
		case "metadata":
			h.object = true
			each(v, func(key string, line int, v *yaml.Node) {
				switch key {
				case "name":
					h.name = plain(v)
				case "namespace":
					if h.namespace = plain(v); h.namespace == "" && v.ShortTag() != "!!null" {
						h.namespace = unreadableNamespace
					}
				default:
					return
				}
				if seen["metadata."+key] {
					h.twice, h.twiceLine = "metadata."+key, line
				}
				seen["metadata."+key] = true
			})
		default:
			return
		}
		if seen[is] {
			h.twice, h.twiceLine = is, line
		}
		seen[is] = true
	})
	return h
}

// unreadableNamespace stands for a namespace that is written but unreadable. It is not a valid namespace name.
const unreadableNamespace = "?"

// each visits the string keys of a mapping.
func each(n *yaml.Node, visit func(key string, line int, v *yaml.Node)) {
	if n = strictyaml.Resolve(n); n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := strictyaml.Resolve(n.Content[i]); k != nil && k.Kind == yaml.ScalarNode {
			if v := strictyaml.Resolve(n.Content[i+1]); v != nil {
				visit(k.Value, n.Content[i].Line, v)
			}
		}
	}
}

// plain returns a node's text, or "" if it has none.
func plain(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
		return n.Value
	}
	return ""
}

// standing classifies a document.
type standing int

const (
	standsClosing standing = iota // of a security kind but unreadable, or possibly so
	standsRefused                 // meant for Isthmus but unreadable
	standsRead                    // of a known kind, in a supported apiVersion
	standsLater                   // of an Istio kind that is not implemented yet
	standsForeign                 // does not concern Isthmus
)

// API groups of the kinds that Isthmus reads, except the core group.
const (
	groupOurs     = "isthmus.dev"
	groupSecurity = "security.istio.io"
)

// groups are the API groups of the kinds that Isthmus reads, except the core group.
var groups = func() (out []string) {
	for _, k := range kind.All {
		if group, _, named := strings.Cut(k.APIVersions[0], "/"); named && !slices.Contains(out, group) {
			out = append(out, group)
		}
	}
	return out
}()

// formerSecurity are Istio's API groups that preceded security.istio.io.
var formerSecurity = []string{"authentication.istio.io", "rbac.istio.io"}

// unreadSecurity are Istio's security kinds that are not in the table of kinds: name and plural.
var unreadSecurity = [][2]string{{"RequestAuthentication", "requestauthentications"}}

// securityKinds are the names of all security kinds. securityWords are those and their plurals in lower case.
var securityKinds, securityWords = func() (names, words []string) {
	all := unreadSecurity
	for _, k := range kind.All {
		if k.Security() {
			all = append(all, [2]string{k.Name, k.Plural})
		}
	}
	for _, k := range all {
		names, words = append(names, k[0]), append(words, strings.ToLower(k[0]), k[1])
	}
	return names, words
}()

// anySecurityKind is a case-insensitive expression that matches the name of a security kind.
var anySecurityKind = "(?:" + strings.Join(securityWords, "|") + ")"

// refusal is the reason why a document is not read.
type refusal struct {
	code                   finding.Code
	field, message, remedy string
}

// stands classifies a document by its head alone, with the reason if it is not read.
func (h head) stands() (k kind.Kind, s standing, why refusal) {
	k, known := kind.Named(h.kind)
	if known && h.misspelt == "" && k.Reads(h.apiVersion) {
		return k, standsRead, why
	}
	group, _, slash := strings.Cut(h.apiVersion, "/")
	if !slash && !strings.Contains(group, ".") {
		group = ""
	}
	near := nearGroup(group)
	elsewhere := slash && near == "" && strings.Contains(group, ".") &&
		!strings.Contains(strings.ToLower(group), "istio")
	cutOff := h.kind == "" && h.apiVersion != "" && strings.HasPrefix(groupSecurity+"/v1beta1", h.apiVersion)
	secure := !elsewhere &&
		(near == groupSecurity || slices.Contains(formerSecurity, group) ||
			finding.Nearest(h.kind, securityKinds) != "" || cutOff)
	s, why.code = standsRefused, finding.UnknownKind
	if secure {
		s = standsClosing
	}
	switch {
	case h.misspelt != "" && (secure || known || near != ""):
		want := "kind"
		if strings.EqualFold(h.misspelt, "apiVersion") {
			want = "apiVersion"
		}
		why.field, why.message, why.remedy = h.misspelt, fmt.Sprintf("there is no field %q here",
			finding.Clip(h.misspelt)), "write "+want
	case elsewhere:
		s = standsForeign
	case h.apiVersion == "" || h.kind == "":
		why.field = "apiVersion"
		if h.apiVersion != "" {
			why.field = "kind"
		}
		why.message, why.remedy = why.field+" is missing or not text", "every document begins with apiVersion and "+
			"kind, for example: apiVersion: isthmus.dev/v1alpha1, kind: FederatedExport"
		if !secure && h.kind != "" && finding.Nearest(h.kind, kind.Names()) == "" {
			s = standsForeign
		}
	case known:
		why.field, why.message, why.remedy = "apiVersion", fmt.Sprintf("%s is not read in apiVersion %q", k.Name,
			finding.Clip(h.apiVersion)), "write apiVersion: "+k.APIVersions[0]
	case secure && slices.Contains(securityKinds, h.kind):
		why.code, why.field = finding.Unsupported, "kind"
		why.message, why.remedy = h.kind+" is not carried out yet", "remove it to do without it"
	case !secure && strings.HasSuffix(group, ".istio.io"):
		s = standsLater
	case !secure && near != groupOurs && finding.Nearest(h.kind, kind.Names()) == "":
		s = standsForeign
	default:
		why.field, why.message, why.remedy = "kind", fmt.Sprintf("the kind %q is not one that Isthmus reads",
			finding.Clip(h.kind)), finding.DidYouMean(h.kind, kind.Names())
	}
	return k, s, why
}

// hides reports whether a document that is not taken for an object may contain one: its head is unclear, or it is an
// unreadable list.
func (h head) hides(s standing) bool {
	return (s == standsForeign || s == standsRefused) &&
		(h.apiVersion == "" || h.kind == "" || strings.HasSuffix(strings.ToLower(h.kind), "list"))
}

// securityValue matches a value that names a security kind or group.
var securityValue = regexp.MustCompile(
	`(?i)^\s*(security\.istio\.io(/.*)?|` + anySecurityKind + `(list)?)\s*$`)

// holdsSecurity reports whether a value anywhere in a mapping names a security kind or group. Keys do not count, since
// Helm values contain them.
func holdsSecurity(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.ScalarNode:
		return len(n.Value) < 256 && securityValue.MatchString(n.Value)
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			if holdsSecurity(n.Content[i]) {
				return true
			}
		}
	case yaml.SequenceNode:
		return slices.ContainsFunc(n.Content, holdsSecurity)
	}
	return false // the target of an alias is visited where it is defined
}

// nearGroup returns the API group that was probably meant, allowing for a typo; "" if it is none that Isthmus reads.
func nearGroup(group string) string {
	for _, g := range groups {
		if len(group) < 64 && finding.Distance(strings.ToLower(group), g) <= 2 {
			return g
		}
	}
	return ""
}

// key identifies the object as far as possible. Without a namespace it may be anywhere in the mesh.
func (h head) key() snapshot.Key {
	key := snapshot.Key{Name: h.name}
	k, known := kind.Named(h.kind)
	if known || finding.IsWord(h.kind) && len(h.kind) <= 63 {
		key.Kind = h.kind
	}
	if len(validation.IsDNS1123Subdomain(h.name)) > 0 {
		key.Name = ""
	}
	switch {
	case known && !k.Namespaced:
	case h.namespace == "" || isPlaceholder(h.namespace):
		key.Namespace = "default"
	case len(validation.IsDNS1123Label(h.namespace)) == 0:
		key.Namespace = h.namespace
	}
	return key
}

// isPlaceholder reports whether s is a template placeholder, which has no meaning before it is filled in.
func isPlaceholder(s string) bool { return strings.HasPrefix(s, "{{") || strings.HasPrefix(s, "${") }

// Broken is an object, or a document that may contain objects, that could not be decoded.
type Broken struct {
	snapshot.Closed // Key is complete only if WholeKey
	// Security means that its kind is, or may be, one that forbids something.
	Security bool

	placeless bool // the namespace is unknown but may have been written
}

// newBroken builds a Broken. If a security kind may be meant, the kind in the head is not trusted.
func newBroken(h head, security bool, line int, reason string, selector map[string]string) Broken {
	key := h.key()
	if k, known := kind.Named(key.Kind); security && known && !k.Security() {
		key.Kind = ""
	}
	return Broken{placeless: !h.object && h.namespace == "", Security: security, Closed: snapshot.Closed{
		Key: key, Origin: snapshot.Origin{Line: line}, Reason: reason, Selector: selector,
	}}
}

// WholeKey reports whether the object is fully identified.
func (b *Broken) WholeKey() bool {
	_, known := kind.Named(b.Key.Kind)
	return known && b.Key.Name != ""
}

// MayBe reports whether it may be this object: nothing known about it says otherwise.
func (b *Broken) MayBe(k snapshot.Key) bool {
	is := b.Key
	_, known := kind.Named(is.Kind)
	return (is.Kind == k.Kind || !known && !slices.Contains(securityKinds, is.Kind)) &&
		(is.Name == "" || is.Name == k.Name) &&
		(b.placeless || is.Namespace == "" || k.Namespace == "" || is.Namespace == k.Namespace)
}

// selectorOf returns the selector in a raw document, or nil if it is not certain.
func selectorOf(doc map[string]any) map[string]string {
	spec, _ := doc["spec"].(map[string]any)
	selector, _ := spec["selector"].(map[string]any)
	labels, _ := selector["matchLabels"].(map[string]any)
	if len(selector) != 1 || len(labels) == 0 {
		return nil
	}
	out := make(map[string]string, len(labels))
	for k, v := range labels {
		s, ok := v.(string)
		if !ok || len(validation.IsQualifiedName(k)) > 0 || len(validation.IsValidLabelValue(s)) > 0 {
			return nil
		}
		out[k] = s
	}
	return out
}

// reasonOf states the first error of an object as the reason why it is closed.
func reasonOf(findings []finding.Finding) string {
	for _, f := range findings {
		if f.Severity == finding.Error {
			if f.Field != "" {
				return f.Field + ": " + f.Message
			}
			return f.Message
		}
	}
	return "it cannot be read"
}
