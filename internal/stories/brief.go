package stories

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/internal/snapshot"
)

// options is the section "options": what of the outcome a story shows. Left out, it shows everything briefly.
type options struct {
	// Show lists what is written, "<proxy> <type> <resource>"; what is left out from the right means all.
	Show []string `json:"show"`
	// Chains are beginnings of filter chains' names: of other chains only the name is written. Left out, all are
	// written.
	Chains []string `json:"chains"`
	// Whole writes every resource out. Otherwise what testdata/known.yaml lists is written as its name.
	Whole bool `json:"whole"`
}

// shows reports whether a resource is written.
func (o options) shows(proxy, typ, name string) bool {
	if o.Show == nil {
		return true
	}
	full := []string{proxy, typ, name}
	for _, s := range o.Show {
		fields := strings.SplitN(s, " ", len(full))
		if strings.Join(fields, " ") == strings.Join(full[:len(fields)], " ") {
			return true
		}
	}
	return false
}

// cut leaves of a listener's other chains only the name.
func (o options) cut(resource map[string]any) {
	chains, _ := resource["filter_chains"].([]any)
	for i, c := range chains {
		name, _ := c.(map[string]any)["name"].(string)
		if o.Chains != nil && !slices.ContainsFunc(o.Chains,
			func(p string) bool { return strings.HasPrefix(name, p) }) {
			chains[i] = map[string]any{"name": name, "+": "not-shown"}
		}
	}
}

// known is one piece of configuration that stands in many resources and says nothing about the case at hand.
type known struct {
	Name string         `json:"name"`
	Has  map[string]any `json:"has"`
}

// phrases shorten: a part of a resource that is exactly what is known is written as its name.
type phrases struct {
	known []known
	texts map[string]string // base64 of bytes → what they are
}

func readPhrases(dir string) (*phrases, error) {
	text, err := os.ReadFile(filepath.Join(dir, "known.yaml"))
	if err != nil {
		return nil, err
	}
	p := &phrases{texts: map[string]string{}}
	if err := yaml.UnmarshalStrict(text, &p.known); err != nil {
		return nil, fmt.Errorf("read known.yaml: %w", err)
	}
	return p, nil
}

// brief replaces what is known, innermost first. The names of what was left out stand under the key "+".
func (p *phrases) brief(v any) any {
	switch v := v.(type) {
	case string:
		if name, ok := p.texts[v]; ok {
			return "(" + name + ")"
		}
	case []any:
		for i := range v {
			v[i] = p.brief(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = p.brief(v[k])
		}
		for _, k := range p.known {
			if includes(v, k.Has) {
				for key := range k.Has {
					delete(v, key)
				}
				also, _ := v["+"].(string)
				v["+"] = strings.TrimPrefix(also+", "+k.Name, ", ")
			}
		}
	}
	return v
}

func includes(v, part map[string]any) bool {
	for key, want := range part {
		if got, ok := v[key]; !ok || !matches(got, want) {
			return false
		}
	}
	return true
}

// matches compares; "<any>" stands for whatever there is.
func matches(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		return ok && len(g) == len(want) && includes(g, want)
	case []any:
		g, ok := got.([]any)
		return ok && slices.EqualFunc(g, want, matches)
	}
	return want == "<any>" || got == want
}

// withRoots puts the certificates of testdata/roots where a story writes "${roots.NAME}".
func (p *phrases) withRoots(dir string, text []byte) ([]byte, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "roots", "*.pem"))
	if err != nil {
		return nil, err
	}
	out := string(text)
	for _, path := range paths {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name := "roots." + strings.TrimSuffix(filepath.Base(path), ".pem")
		out = strings.ReplaceAll(out, "${"+name+"}", fmt.Sprintf("%q", pem))
		p.texts[base64.StdEncoding.EncodeToString(pem)] = name
		p.texts[base64.StdEncoding.EncodeToString([]byte(strings.TrimSpace(string(pem))))] = name
	}
	return []byte(out), nil
}

// renamed gives the file the name that it has in the story, wherever it was put.
func renamed(all *snapshot.Objects) *snapshot.Objects {
	origins := map[snapshot.Key]snapshot.Origin{}
	for o := range all.All() {
		at := o.Origin
		at.File = filepath.Base(at.File)
		origins[o.Key] = at
	}
	return all.WithOrigins(origins)
}
