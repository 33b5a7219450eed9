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

// options is the section "options": which parts of the outcome a story shows. Default: everything, in brief form.
type options struct {
	// Show lists resources as "<proxy> <type> <resource>". Parts omitted from the right match everything.
	Show []string `json:"show"`
	// Chains lists prefixes of filter chain names. Of other chains only the name is written. Default: all are written.
	Chains []string `json:"chains"`
	// Whole writes every resource in full. Otherwise the fragments in testdata/known.yaml are replaced by their names.
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

// cut reduces a listener's other chains to their names.
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

// known is a fragment that is common to many resources and irrelevant to the case.
type known struct {
	Name string         `json:"name"`
	Has  map[string]any `json:"has"`
}

// phrases replaces known fragments of resources by their names.
type phrases struct {
	known []known
	texts map[string]string // base64 of bytes → description
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

// brief replaces known fragments, innermost first. Their names are listed under the key "+".
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

// matches compares values. "<any>" matches everything.
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

// withRoots replaces "${roots.NAME}" in a story by a certificate of testdata/roots.
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

// renamed sets the file name of objects to the one in the story.
func renamed(all *snapshot.Objects) *snapshot.Objects {
	origins := map[snapshot.Key]snapshot.Origin{}
	for o := range all.All() {
		at := o.Origin
		at.File = filepath.Base(at.File)
		origins[o.Key] = at
	}
	return all.WithOrigins(origins)
}
