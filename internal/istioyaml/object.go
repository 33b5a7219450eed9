package istioyaml

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// decodeObject reads one object. It is nil when there are errors.
func decodeObject(n *yaml.Node, left *budget, validate Validator) (*Object, []finding.Finding) {
	t := newTree(n, left)
	v := t.value(n, "", 0)
	doc, ok := v.(map[string]any)
	if !ok {
		if len(t.findings) == 0 {
			t.refuse(CodeSyntax, "", "the document is "+typeName(v)+", not an object", "begin it with apiVersion, kind and metadata")
		}
		return nil, t.findings
	}
	r := &t.report
	k, ok := r.header(doc)
	if !ok || hasErrors(r.findings) {
		return nil, r.findings
	}
	key, ok := r.metadata(doc, k)
	if !ok {
		return nil, r.findings
	}
	value := r.typed(k, doc, validate)
	if hasErrors(r.findings) {
		return nil, r.findings
	}
	return &Object{Key: key, Value: value, Origin: r.origin}, r.findings
}

// header finds the object's kind.
func (r *report) header(doc map[string]any) (kind.Kind, bool) {
	apiVersion, _ := doc["apiVersion"].(string)
	name, _ := doc["kind"].(string)
	if md, ok := doc["metadata"].(map[string]any); ok {
		r.object = strings.TrimSpace(name + " " + text(md["name"]))
	}
	if apiVersion == "" || name == "" {
		missing := "apiVersion"
		if apiVersion != "" {
			missing = "kind"
		}
		r.refuse(CodeUnknownKind, missing, missing+" is missing or not text", "every document begins with apiVersion and kind, for example: apiVersion: isthmus.dev/v1alpha1, kind: FederatedExport")
		return kind.Kind{}, false
	}
	k, ok := kind.Named(name)
	if !ok {
		r.refuse(CodeUnknownKind, "kind", fmt.Sprintf("the kind %q is not one that Isthmus reads", clip(name)), DidYouMean(name, kind.Names()))
		return kind.Kind{}, false
	}
	if !k.Reads(apiVersion) {
		r.refuse(CodeUnknownKind, "apiVersion", fmt.Sprintf("%s is not read in apiVersion %q", k.Name, clip(apiVersion)), "write apiVersion: "+k.APIVersions[0])
		return kind.Kind{}, false
	}
	return k, true
}

// metadata checks name and namespace and writes the namespace that a namespaced object means.
func (r *report) metadata(doc map[string]any, k kind.Kind) (snapshot.Key, bool) {
	md, ok := doc["metadata"].(map[string]any)
	if !ok {
		r.refuse(CodeMetadata, "metadata", "metadata is missing", "write metadata: with name: inside")
		return snapshot.Key{}, false
	}
	name, ok := md["name"].(string)
	if !ok || name == "" {
		r.refuse(CodeMetadata, "metadata.name", "the object has no name", "write metadata.name")
		return snapshot.Key{}, false
	}
	key := snapshot.Key{Kind: k.Name, Name: name}
	before := len(r.findings)
	r.name(k, name)
	switch ns := md["namespace"]; {
	case !k.Namespaced && ns != nil:
		r.refuse(CodeMetadata, "metadata.namespace", k.Name+" belongs to the whole mesh and has no namespace", "remove metadata.namespace")
	case k.Namespaced && ns == nil:
		key.Namespace = "default"
		md["namespace"] = key.Namespace
	case k.Namespaced:
		key.Namespace = text(ns)
		if len(validation.IsDNS1123Label(key.Namespace)) > 0 {
			r.refuse(CodeMetadata, "metadata.namespace", fmt.Sprintf("%q cannot be a namespace", clip(key.Namespace)), "use at most 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit")
		}
	}
	if len(r.findings) > before {
		return key, false
	}
	r.object = key.String()
	r.labels("metadata.labels", md["labels"])
	return key, true
}

func (r *report) name(k kind.Kind, name string) {
	if k.NameIsLabel && len(validation.IsDNS1123Label(name)) > 0 {
		r.refuse(CodeMetadata, "metadata.name", fmt.Sprintf("%q cannot be the name of a %s", clip(name), k.Name), "use at most 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit")
	} else if len(validation.IsDNS1123Subdomain(name)) > 0 {
		r.refuse(CodeMetadata, "metadata.name", fmt.Sprintf("%q cannot be a name", clip(name)), "use at most 253 lower-case letters, digits, hyphens and dots, beginning and ending with a letter or digit")
	}
}

// labels checks that labels could be labels; types are checked elsewhere.
func (r *report) labels(path string, v any) {
	m, _ := v.(map[string]any)
	for _, k := range sortedKeys(m) {
		if len(validation.IsQualifiedName(k)) > 0 {
			r.refuse(CodeMetadata, childPath(path, k), fmt.Sprintf("%q cannot be a label's key", clip(k)), "use letters, digits, '-', '_' and '.', at most 63, optionally after a DNS name and '/'")
		}
		if s, ok := m[k].(string); ok && len(validation.IsValidLabelValue(s)) > 0 {
			r.refuse(CodeMetadata, childPath(path, k), fmt.Sprintf("%q cannot be a label's value", clip(s)), "use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")
		}
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
