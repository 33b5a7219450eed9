package layers

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestDocsNameWhatIsThere: the files, folders and Go names that pages mention exist, so that a page is corrected when
// what it describes is moved or renamed.
func TestDocsNameWhatIsThere(t *testing.T) {
	known := catalogue(t)
	named := 0
	for _, page := range pages(t) {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		complaints, n := known.missing(page, string(text))
		for _, c := range complaints {
			t.Error(c)
		}
		named += n
	}
	if named < 150 {
		t.Errorf("%d names were looked up: too few for these pages", named)
	}
}

// pages are those that speak of the code.
func pages(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			out = append(out, filepath.ToSlash(strings.TrimPrefix(f, root+"/")))
		}
	}
	return out
}

// repository is what there is to name.
type repository struct {
	paths map[string]bool            // files and folders, from the root
	names map[string]bool            // files, without their folders
	decls map[string]map[string]bool // by package, without its folders: what is declared, methods and fields included
	types map[string]bool            // of all packages
	words map[string]bool            // of Go files
}

func catalogue(t *testing.T) repository {
	t.Helper()
	r := repository{
		map[string]bool{}, map[string]bool{}, map[string]map[string]bool{}, map[string]bool{}, map[string]bool{},
	}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == ".cache" || d.Name() == "bin"):
			return filepath.SkipDir
		}
		name := filepath.ToSlash(strings.TrimPrefix(file, root+"/"))
		r.paths[name], r.names[path.Base(name)] = true, true
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for word := range strings.FieldsFuncSeq(string(text), isPunctuation) {
			r.words[word] = true
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg := path.Base(path.Dir(name))
		if r.decls[pkg] == nil {
			r.decls[pkg] = map[string]bool{}
		}
		r.declare(parsed, r.decls[pkg])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func isPunctuation(c rune) bool { return c != '_' && !unicode.IsLetter(c) && !unicode.IsDigit(c) }

// declare adds what a file declares outside functions.
func (r repository) declare(file *ast.File, to map[string]bool) {
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			to[f.Name.Name] = true
			continue
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				to[n.Name.Name], r.types[n.Name.Name] = true, true
			case *ast.ValueSpec:
				for _, name := range n.Names {
					to[name.Name] = true
				}
			case *ast.Field:
				for _, name := range n.Names {
					to[name.Name] = true
				}
			}
			return true
		})
	}
}

var (
	fenced   = regexp.MustCompile("(?ms)^```.*?^```$")
	quoted   = regexp.MustCompile("`([^`\n]+)`")
	pathLike = regexp.MustCompile(`^[\w./*-]+$`)
	fileLike = regexp.MustCompile(`^[\w.-]+\.(?:go|lua|sql|txtar)$`)
	member   = regexp.MustCompile(`^([A-Z]\w*)\.([A-Z]\w*)$`)
	oneWord  = regexp.MustCompile(`^(?:[a-z0-9]+[A-Z]|Test[A-Z]|Fuzz[A-Z])\w*$`)
	goName   = regexp.MustCompile(`^(?:[\w/]+/)?([a-z]\w*)\.([A-Za-z]\w*)(?:\.(\w+))?`)
)

// missing are the names in backticks that stand for something in the repository which is not there, and how many were
// looked up. Whatever cannot be told from other words (commands, Envoy's fields, hosts) is passed over.
func (r repository) missing(page, text string) (complaints []string, named int) {
	for _, m := range quoted.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		if strings.HasPrefix(page, "docs/kinds/") && oneWord.MatchString(m[1]) {
			continue // a field, which may be one of Istio's that is not carried out
		}
		if there, ours := r.find(m[1]); ours {
			named++
			if !there {
				complaints = append(complaints, fmt.Sprintf("%s names `%s`, which is not there", page, m[1]))
			}
		}
	}
	return complaints, named
}

// find says whether a name stands for something in the repository, and whether that is there.
func (r repository) find(name string) (there, ours bool) {
	if fileLike.MatchString(name) {
		return r.names[name], true
	}
	if oneWord.MatchString(name) {
		return r.words[name], true
	}
	if m := member.FindStringSubmatch(name); m != nil && r.types[m[1]] {
		return r.words[m[2]], true
	}
	first, _, nested := strings.Cut(name, "/")
	if m := goName.FindStringSubmatch(name); m != nil && r.decls[m[1]] != nil && !r.isFile(name) {
		decls := r.decls[m[1]]
		// A lower-case name may as well be a key, a host or a file of another program.
		exported := strings.ToUpper(m[2][:1]) == m[2][:1]
		return decls[m[2]] && (m[3] == "" || decls[m[3]]), exported || decls[m[2]]
	}
	if nested && pathLike.MatchString(name) && (r.paths[first] || r.paths["internal/"+first]) {
		return r.isFile(name), true
	}
	return false, false
}

// isFile: paths may be given from the root or from internal, with "*" for any name.
func (r repository) isFile(name string) bool {
	name = strings.TrimSuffix(name, "/")
	for _, full := range []string{name, "internal/" + name} {
		if r.paths[full] {
			return true
		}
		if strings.Contains(full, "*") {
			for p := range r.paths {
				if ok, _ := path.Match(full, p); ok {
					return true
				}
			}
		}
	}
	return false
}

// TestMissing proves that the rule above can fail.
func TestMissing(t *testing.T) {
	known := catalogue(t)
	gone := strings.Join([]string{"Gone", "Entirely"}, "") // not a word of this file
	for text, want := range map[string]string{
		"`internal/layers/docs_test.go`":                 "",
		"`layers/docs_test.go`, `layers/`":               "",
		"`layers/*_test.go`":                             "",
		"`docs_test.go`":                                 "",
		"`compile.Mesh`, `snapshot.Config.Closed`":       "",
		"`snapshot.Of[*corev1.Service](cfg)`":            "",
		"`layers.TestMissing/a part`":                    "",
		"```\n`layers/gone.go`\n```":                     "",
		"`istioctl`, `tcp_mem`, `node.yaml`":             "",
		"`envoy.maxConnections`":                         "",
		"`internal/layers/gone.go`":                      "p.md names `internal/layers/gone.go`, which is not there",
		"`layers/gone.go`":                               "p.md names `layers/gone.go`, which is not there",
		"`layers/*.gone`":                                "p.md names `layers/*.gone`, which is not there",
		"`no_such_file.go`":                              "p.md names `no_such_file.go`, which is not there",
		"`Origin.FirstSeen`, `httpOrder`, `TestMissing`": "",
		"`Origin." + gone + "`":                          "p.md names `Origin." + gone + "`, which is not there",
		"`a" + gone + "`":                                "p.md names `a" + gone + "`, which is not there",
		"`Test" + gone + "`":                             "p.md names `Test" + gone + "`, which is not there",
		"`compile.Gone`":                                 "p.md names `compile.Gone`, which is not there",
		"`snapshot.Config.Gone`":                         "p.md names `snapshot.Config.Gone`, which is not there",
		"`meshd/agents.TestGone`":                        "p.md names `meshd/agents.TestGone`, which is not there",
	} {
		got, _ := known.missing("p.md", text)
		if !slices.Equal(got, strings.FieldsFunc(want, func(r rune) bool { return r == '\n' })) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
