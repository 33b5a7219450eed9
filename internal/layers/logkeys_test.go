package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var snakeCase = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// TestLogKeys: every log message is a constant, every key is one in lower snake case, and that of an error is "error".
func TestLogKeys(t *testing.T) {
	calls := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				found, faults := logCall(c)
				if found {
					calls++
				}
				for _, fault := range faults {
					t.Errorf("%s: %s", set.Position(c.Pos()), fault)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls < 100 {
		t.Errorf("only %d log calls found", calls)
	}
}

// TestLogCall holds the reading of one call to calls that it must find fault with.
func TestLogCall(t *testing.T) {
	for code, want := range map[string]string{
		`log.Info("joined", "trust_domain", td)`:         "true []",
		`s.cfg.Log.Warn("late", "error", err)`:           "true []",
		`a.log.Log(ctx, level, "said", "peer", p)`:       "true []",
		`log.Info("joined", "trustDomain", td)`:          `true ["trustDomain" is not in snake case]`,
		`log.With("component", x)`:                       "true []",
		`log.Error("failed", "err", err)`:                `true [the key of an error is "error", not "err"]`,
		`log.Info("joined "+name)`:                       "true [the message is not a constant]",
		`log.Info("joined", key, value)`:                 "true []",
		`log.Info("joined", slog.String("nodeName", n))`: `true ["nodeName" is not in snake case]`,
		`t.Error("no", "KEY")`:                           "false []",
		`fmt.Println("x", "KEY")`:                        "false []",
	} {
		e, err := parser.ParseExpr(code)
		if err != nil {
			t.Fatal(err)
		}
		found, faults := logCall(e.(*ast.CallExpr))
		if got := strconv.FormatBool(found) + " [" + strings.Join(faults, "; ") + "]"; got != want {
			t.Errorf("%s: %s, want %s", code, got, want)
		}
	}
}

// logCall reports whether a call writes to a slog.Logger, known by the name of the variable or field, and what is wrong
// with its message and keys.
func logCall(c *ast.CallExpr) (found bool, faults []string) {
	method, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return false, nil
	}
	message, withMessage := map[string]int{
		"Debug": 0, "Info": 0, "Warn": 0, "Error": 0,
		"DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1, "Log": 2,
	}[method.Sel.Name]
	if !withMessage && method.Sel.Name != "With" || !isLogger(method.X) {
		return false, nil
	}
	attributes := c.Args
	if withMessage {
		if len(c.Args) <= message {
			return false, nil
		}
		if _, ok := text(c.Args[message]); !ok {
			faults = append(faults, "the message is not a constant")
		}
		attributes = c.Args[message+1:]
	}
	for i := 0; i < len(attributes); {
		key := attributes[i]
		if attr, ok := key.(*ast.CallExpr); ok && len(attr.Args) > 0 { // slog.String(…) and its like
			key, i = attr.Args[0], i+1
		} else {
			i += 2
		}
		switch name, ok := text(key); {
		case !ok:
		case slices.Contains([]string{"err", "cause"}, name):
			faults = append(faults, `the key of an error is "error", not `+strconv.Quote(name))
		case !snakeCase.MatchString(name):
			faults = append(faults, strconv.Quote(name)+" is not in snake case")
		}
	}
	return true, faults
}

func isLogger(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "log" || e.Name == "slog"
	case *ast.SelectorExpr:
		return e.Sel.Name == "log" || e.Sel.Name == "Log"
	}
	return false
}

// text is the value of a string literal, or of several that are joined.
func text(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		left, ok := text(e.X)
		right, alsoOK := text(e.Y)
		return left + right, ok && alsoOK
	}
	return "", false
}
