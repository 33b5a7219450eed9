package pathmatch

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/model"
)

// pattern reads Istio's form.
func pattern(v string) model.Match {
	switch {
	case strings.Contains(v, "{*}") || strings.Contains(v, "{**}"):
		return model.Match{Kind: model.Template, Value: v}
	case v == "*":
		return model.Match{Kind: model.Present}
	case strings.HasPrefix(v, "*"):
		return model.Match{Kind: model.Suffix, Value: v[1:]}
	case strings.HasSuffix(v, "*"):
		return model.Match{Kind: model.Prefix, Value: v[:len(v)-1]}
	}
	return model.Match{Value: v}
}

// matches does what a proxy does. Go's expressions have no \C, and a path that reaches them is ASCII.
func (t Test) matches(path string) bool {
	if t.Plain != nil && plainly(*t.Plain, path) {
		return true
	}
	odd := strings.Contains(path, "%") || strings.Contains(path, "//")
	expression := strings.ReplaceAll(t.Regex, `\C`, `(?s:.)`)
	return t.Regex != "" && (odd || !t.Odd) && regexp.MustCompile(`\A(?:`+expression+`)\z`).MatchString(path)
}

func plainly(m model.Match, path string) bool {
	switch m.Kind {
	case model.Present:
		return true
	case model.Prefix:
		return strings.HasPrefix(path, m.Value)
	case model.Suffix:
		return strings.HasSuffix(path, m.Value)
	}
	return path == m.Value
}

// Paths stand as a proxy compares them: after its own normalisation.
func TestPatterns(t *testing.T) {
	for _, c := range []struct{ pattern, both, refusing, neither string }{
		// what is matched by what allows and by what refuses · by what refuses alone · by neither
		{
			"/users/@admin", "/users/@admin", "/users/%40admin //users/@admin /users//%40admin",
			"/users/@admin/ /users/admin /users/%41admin",
		},
		{"/users/%40admin", "/users/%40admin", "/users/@admin", "/users/%40Admin"},
		{"/a/%41*", "/a/A /a/Ab", "/a//A", "/a/%41 /a/a"},
		{"/x", "/x", "//x ///x", "/x/ /y"},
		{"/", "/", "// ///", "/x"},
		{"/admin/*", "/admin/ /admin/x /admin/x%40y /admin//x", "//admin/x", "/admin /"},
		{"/admin*", "/admin /administrator", "//admin", "/adm%69n /x/admin"},
		{"/q!$&'()*+,:=[]*", "/q!$&'()*+,:=[] /q!$&'()*+,:=[]x", "/q%21%24%26%27%28%29%2a%2B%2c%3A%3D%5b%5D", "/q"},
		{"/annual report*", "/annual%20report /annual%20reports", "//annual%20report", "/annual+report /annual"},
		{"/café*", "/caf%C3%A9 /caf%c3%a9/x /caf%c3%A9", "//caf%C3%A9", "/cafe /caf%E9"},
		{"/a<b>", "/a%3Cb%3e", "", "/a"},
		{"/search%3Fq", "/search%3fq /search%3Fq", "", "/search"},
		{"*.png", "/x.png /%40.png /x//y.png", "", "/x.pngs"},
		{"*@x", "/@x /y@x", "/%40x", "/x"},
		{"*admin", "/admin /x%40admin", "/%2admin", "/admins"},
		{"*40x", "/40x /140x", "/%40x", "/@x"},
		{"*/b", "/b /a/b", "", "/a/b/"}, // "//b" by both, as below
		{"*/b", "//b /a//b", "", "/ab"},
		{"*", "/ /x //x /%40", "", ""},
		{"/a/{*}/c", "/a/b/c /a/%40/c", "/a//b/c //a/b/c /a/[]/c", "/a//c /a/c /a/b/b/c"},
		{"/@/{*}", "/@/x", "/%40/x", "/@/ /@/x/y"},
		{"/f/{**}", "/f/ /f/x /f/x/y /f//", "//f/x /f/[]", "/f"},
		{"/f/{**}/x", "/f/a/x /f/a/b/x /f/a//x", "/f//a/x", "/f/x /f//x"},
		{`/a\b*`, "/a/b /a/bc", "//a/b /a//b", "/ab"},
		{"/a//b", "", "/a/b /a//b /a///b //a/b", "/ab"},
		{"/search?q=*", "", "", "/search /search/q= /"},
	} {
		m := pattern(c.pattern)
		narrow, wide := Written(m), AnySpelling(m)
		for list, want := range map[string][2]bool{c.both: {true, true}, c.refusing: {false, true}, c.neither: {}} {
			for _, path := range strings.Fields(list) {
				if got := [2]bool{narrow.matches(path), wide.matches(path)}; got != want {
					t.Errorf("%s and %s: allows, refuses: %v, want %v", c.pattern, path, got, want)
				}
			}
		}
	}
}

func TestFaults(t *testing.T) {
	for v, want := range map[string]string{
		"/search?q=*": "no query", "/a#b": "no query", "/a;b": "refused before", "/a%2fb": "%2F is refused",
		"/a%5Cb":  "%5C is refused",
		"/a%252e": "%25 is refused", "/a%00": "%00 is refused", "/a%7f": "%7F is refused", "/%c0%af": "%C0 is refused",
		"/%C1%81": "%C1 is refused", `/a\..\b`: `segment ".."`, "/100%": "hexadecimal", "/%zz": "hexadecimal",
		"/%4":     "hexadecimal",
		"/a/../b": `segment ".."`, "/a/%2e%2E/b*": `segment ".."`, "/a/.": `segment "."`, "*/../b": `segment ".."`,
		"/./{*}": `segment "."`,
		"admin":  "begins with", "v1/{*}": "begins with", "//admin": `"//"`, "*//x": `"//"`,
		"%2Fadmin": "%2F is refused",
	} {
		if got, remedy := Fault(pattern(v)); !strings.Contains(got, want) || remedy == "" {
			t.Errorf("%s: %q, %q; want %q", v, got, remedy, want)
		}
	}
	for _, v := range []string{
		"*", "/", "/*", "*.png", "/a/..*", "*../b", "/a/...", "/café", "/annual report*", "/a%40", "/a/%41", `/a\b`,
		"/{**}", "/a/{*}/b",
		"/a%3Bb", "/a+b",
	} {
		if got, _ := Fault(pattern(v)); got != "" {
			t.Errorf("%s: %s", v, got)
		}
	}
}

// Whatever a server makes of a path, what refuses matches it if one reading is meant, and what allows only if all are.
func TestEveryReading(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"/", "/", "a", "b", "0", "4", "@", "%40", "%2a", "*", "%c3%a9", "%20", "~"}
	random := func(most int) string {
		var b strings.Builder
		b.WriteByte('/')
		for range r.IntN(most) {
			b.WriteString(words[r.IntN(len(words))])
		}
		return b.String()
	}
	decoded := func(s string) string {
		return regexp.MustCompile(`%..`).ReplaceAllStringFunc(s, func(e string) string {
			return map[string]string{
				"%40": "@", "%2a": "*", "%c3": "\xc3", "%a9": "\xa9",
				"%20": " ",
			}[strings.ToLower(e)]
		})
	}
	merged := func(s string) string { return regexp.MustCompile(`/+`).ReplaceAllString(s, "/") }
	allowed, refused := 0, 0
	for range 20_000 {
		m := model.Match{Kind: model.MatchKind(r.IntN(3)), Value: merged(random(4))}
		if m.Kind == model.Suffix && r.IntN(2) == 0 {
			m.Value = m.Value[1:]
		}
		if _, f := read(m); f != nil || m.Value == "" {
			continue
		}
		path := random(5)
		n, all := 0, 4
		for _, form := range []string{path, merged(path)} {
			if plainly(m, form) {
				n++
			}
			if plainly(model.Match{Kind: m.Kind, Value: decoded(m.Value)}, decoded(form)) {
				n++
			}
		}
		if Written(m).matches(path) {
			if allowed++; n < all {
				t.Fatalf("%v allows %s, of which %d of %d readings are meant", m, path, n, all)
			}
		}
		if AnySpelling(m).matches(path) {
			refused++
		} else if n > 0 {
			t.Fatalf("%v does not refuse %s, of which %d of %d readings are meant", m, path, n, all)
		}
	}
	if allowed < 100 || refused < allowed {
		t.Errorf("%d allowed, %d refused: the test tries too little", allowed, refused)
	}
}
