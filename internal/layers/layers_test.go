package layers

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	module = "isthmus.dev/isthmus/"
	root   = "../.."
)

type layer int

const (
	words layer = iota + 1
	nouns
	pure
	mechanisms
	edges
	assembly
)

func (l layer) String() string {
	return [...]string{"", "words", "nouns", "pure", "mechanisms", "edges", "assembly"}[l]
}

// table puts every package of the module into its layer. A trailing "/..." covers a folder.
// A package imports from its own layer and below, never from above.
var table = map[string]layer{
	"api/v1alpha1":       words,
	"internal/sni":       words,
	"internal/spiffe":    words,
	"internal/version":   words,
	"internal/clocktest": words,
	"internal/fieldtest": words,
	"internal/times":     words,
	"internal/waittest":  words,
	"internal/logtest":   words,
	"internal/yamltest":  words,
	"internal/wellknown": words,

	"internal/finding":  nouns,
	"internal/grant":    nouns,
	"internal/kind":     nouns,
	"internal/model":    nouns,
	"internal/reserved": nouns,
	"internal/snapshot": nouns,
	"internal/vip":      nouns,

	"internal/authz":      pure,
	"internal/check":      pure,
	"internal/compile":    pure,
	"internal/contain":    pure,
	"internal/envoy":      pure,
	"internal/gate":       pure,
	"internal/istioyaml":  pure,
	"internal/strictyaml": pure,
	"internal/pathmatch":  pure,
	"internal/peerrules":  pure,
	"internal/view":       pure,

	"internal/adminapi":   mechanisms,
	"internal/agentapi":   mechanisms,
	"internal/ca":         mechanisms,
	"internal/rpc":        mechanisms,
	"internal/door":       mechanisms,
	"internal/durable":    mechanisms,
	"internal/procid":     mechanisms,
	"internal/retry":      mechanisms,
	"internal/rates":      mechanisms,
	"internal/errand":     mechanisms,
	"internal/unixsocket": mechanisms,
	"internal/sdnotify":   mechanisms,
	"internal/federation": mechanisms,
	"internal/node/...":   mechanisms,
	"internal/schema/...": mechanisms,
	"internal/state/...":  mechanisms,
	"internal/store":      mechanisms,
	"internal/xds":        mechanisms,

	"internal/source/...": edges,

	"bench/...":          assembly,
	"cmd/isthmus":        assembly,
	"internal/cli":       assembly,
	"internal/config":    assembly,
	"internal/demo/...":  assembly,
	"internal/hostile":   assembly,
	"internal/layers":    assembly,
	"internal/meshd/...": assembly,
	"internal/stories":   assembly,
	"samples/...":        assembly,
	"test/...":           assembly,
}

// parts are those of the control plane, by level: each imports of them only what is below.
var parts = map[string]int{
	"internal/meshd/containment": 1,
	"internal/meshd/draft":       1,
	"internal/meshd/gateways":    1,
	"internal/meshd/replicas":    1,
	"internal/meshd/rotation":    1,
	"internal/meshd/standing":    1,
	"internal/meshd/agents":      2,
	"internal/meshd/spine":       2,
	"internal/meshd/admin":       3,
	"internal/meshd":             4,
}

// impure are the doors to the world. Words, nouns and pure packages use none of them.
var impure = []string{"context", "database/sql", "google.golang.org/grpc", "log/slog", "net/http", "os"}

type pkg struct {
	name       string // path inside the module
	documented bool
	imports    []string
}

func TestLayers(t *testing.T) {
	pkgs := read(t)
	if len(pkgs) < 10 {
		t.Fatalf("read %d packages: too few to be this module", len(pkgs))
	}
	for _, p := range pkgs {
		for _, complaint := range check(p) {
			t.Error(complaint)
		}
	}
}

// TestLayersAreDocumented: docs/architecture.md lists the packages of each layer as table does, and table has none that
// is gone.
func TestLayersAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]layer{}
	for _, line := range regexp.MustCompile(`(?m)^[1-6] [a-z]+ +.*$`).FindAllString(string(page), -1) {
		number, names, _ := strings.Cut(line, " ")
		_, names, _ = strings.Cut(names, " ")
		for name := range strings.SplitSeq(names, " · ") {
			name = strings.ReplaceAll(strings.TrimSpace(name), "…", "...")
			if _, whole := table[name]; !whole {
				name = "internal/" + name
			}
			documented[name] = layer(number[0] - '0')
		}
	}
	if !maps.Equal(documented, table) {
		for name := range maps.Keys(documented) {
			if documented[name] != table[name] {
				t.Errorf("docs/architecture.md has %s in layer %q, table in %q", name, documented[name], table[name])
			}
		}
		for name := range maps.Keys(table) {
			if documented[name] == 0 {
				t.Errorf("docs/architecture.md does not list %s", name)
			}
		}
	}
	for name := range table {
		if _, err := os.Stat(filepath.Join(root, strings.TrimSuffix(name, "/..."))); err != nil {
			t.Errorf("table has %s, which is gone", name)
		}
	}
}

// check says what is wrong with one package.
func check(p pkg) []string {
	own, ok := layerOf(p.name)
	if !ok {
		return []string{fmt.Sprintf("%s is in no layer: add a row to table in internal/layers/layers_test.go", p.name)}
	}
	var out []string
	if !p.documented {
		out = append(out, fmt.Sprintf("%s has no package comment: say in one sentence what it is for", p.name))
	}
	for _, imp := range p.imports {
		name, inside := strings.CutPrefix(imp, module)
		switch target, known := layerOf(name); {
		case inside && known && target > own:
			out = append(out, fmt.Sprintf("%s (%s) imports %s (%s): imports point only downward", p.name, own, name,
				target))
		case parts[p.name] > 0 && parts[name] >= parts[p.name]:
			out = append(out, fmt.Sprintf("%s imports %s, which is not below it: see parts", p.name, name))
		case strings.HasPrefix(p.name, "internal/meshd/") && parts[p.name] == 0:
			out = append(out, fmt.Sprintf("%s has no level among the control plane's parts", p.name))
		case inside && name == "internal/cli" && p.name != "cmd/isthmus":
			out = append(out, fmt.Sprintf("%s imports internal/cli: only cmd/isthmus may", p.name))
		case !inside && own <= pure && slices.Contains(impure, imp):
			out = append(out, fmt.Sprintf(
				"%s (%s) imports %s: it takes values and returns values; leave the world to a layer above", p.name,
				own, imp))
		}
	}
	return out
}

func layerOf(name string) (layer, bool) {
	if l, ok := table[name]; ok {
		return l, true
	}
	for at := name; ; {
		if l, ok := table[at+"/..."]; ok {
			return l, true
		}
		i := strings.LastIndexByte(at, '/')
		if i < 0 {
			return 0, false
		}
		at = at[:i]
	}
}

// read parses the module's packages: comments and imports only. (Not `go list`: the test cache must see what was read.)
func read(t *testing.T) []pkg {
	t.Helper()
	byDir := map[string]*pkg{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root &&
			(strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		p := byDir[dir]
		if p == nil {
			p = &pkg{name: filepath.ToSlash(dir)}
			byDir[dir] = p
		}
		p.documented = p.documented || file.Doc.Text() != ""
		for _, imp := range file.Imports {
			p.imports = append(p.imports, strings.Trim(imp.Path.Value, `"`))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		p := *byDir[dir]
		slices.Sort(p.imports)
		p.imports = slices.Compact(p.imports)
		pkgs = append(pkgs, p)
	}
	return pkgs
}

// TestCheck proves that the rules above can fail.
func TestCheck(t *testing.T) {
	p := func(name, doc string, imports ...string) pkg {
		return pkg{name: name, documented: doc != "", imports: imports}
	}
	for name, tc := range map[string]struct {
		in   pkg
		want []string
	}{
		"fine": {p("internal/view", "cuts.", module+"internal/model", "slices"), nil},
		"upward": {
			p("internal/view", "cuts.", module+"internal/xds"),
			[]string{"internal/view (pure) imports internal/xds (mechanisms): imports point only downward"},
		},
		"upward, nested": {
			p("internal/model", "means.", module+"internal/source/file"),
			[]string{"internal/model (nouns) imports internal/source/file (edges): imports point only downward"},
		},
		"no comment": {
			p("internal/xds", ""),
			[]string{"internal/xds has no package comment: say in one sentence what it is for"},
		},
		"unknown": {
			p("internal/util", "helps."),
			[]string{"internal/util is in no layer: add a row to table in internal/layers/layers_test.go"},
		},
		"unknown, below": {
			p("internal/view/deep", "hides."),
			[]string{"internal/view/deep is in no layer: add a row to table in internal/layers/layers_test.go"},
		},
		"impure": {
			p("internal/compile", "means.", "os"),
			[]string{"internal/compile (pure) imports os: it takes values and returns values; leave the world to a layer above"},
		},
		"cli": {
			p("internal/demo", "shows.", module+"internal/cli"),
			[]string{"internal/demo imports internal/cli: only cmd/isthmus may"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := check(tc.in); !slices.Equal(got, tc.want) {
				t.Errorf("check:\n%q\nwant\n%q", got, tc.want)
			}
		})
	}
}
