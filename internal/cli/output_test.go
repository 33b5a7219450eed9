package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"

	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/internal/adminapi"
)

// What other machines said reaches neither terminals nor logs as anything but text, in whatever format; data stays what
// it was.
func TestHiddenTextIsEscaped(t *testing.T) {
	said := map[string]string{
		"text":  "a\u202eb\u2066c\u200bd\u009b31me\x7ff\u2028g\U000e0001h\x1b[2Ji",
		"plain": "ü 漢 🙂 \"quoted\" #not a comment", "lines": "one\ntwo\n",
		"\u202ekey": "x",
	}
	for _, format := range []output{formatJSON, formatYAML} {
		a := &app{World: World{Now: time.Now}, output: format}
		text, err := a.render(said, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range text {
			if r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)) {
				t.Errorf("%s: U+%04X stands in the output\n%q", format, r, text)
			}
		}
		if !strings.Contains(text, "ü 漢 ") {
			t.Errorf("%s: plain text is escaped too: %s", format, text)
		}
		back := map[string]string{}
		read := json.Unmarshal
		if format == formatYAML {
			read = func(data []byte, v any) error { return yaml.Unmarshal(data, v) }
		}
		if err := read([]byte(text), &back); err != nil {
			t.Fatalf("%s: %v\n%s", format, err, text)
		}
		for k, v := range said {
			if back[k] != v {
				t.Errorf("%s: %q is read back as %q", format, v, back[k])
			}
		}
	}
}

func TestNoListIsNull(t *testing.T) {
	a := &app{output: formatJSON}
	status := adminapi.StatusResponse{Proxies: []adminapi.ProxyStatus{{Name: "rack1"}}}
	got, err := a.render(&status, nil)
	if err != nil || strings.Contains(got, "null") || !strings.Contains(got, `"findings": []`) ||
		!strings.Contains(got, `"types": []`) {
		t.Errorf("%v\n%s", err, got)
	}
	if status.Findings != nil || status.Proxies[0].Types != nil {
		t.Error("the answer itself was changed")
	}
	a.output = formatYAML
	if got, err = a.render(&status, nil); err != nil || strings.Contains(got, "null") {
		t.Errorf("%v\n%s", err, got)
	}
}

// Cobra takes a flag's value to be called what stands between backquotes in its help.
func TestHelpNamesValues(t *testing.T) {
	got := run(t, "", "status", "--help")
	if !strings.Contains(got.out, "--credentials FILE ") ||
		!strings.Contains(got.out, "PEM FILE that isthmus admin cert wrote") {
		t.Error(got.out)
	}
}

func TestCancelledText(t *testing.T) {
	same(t, cancelledText("", 1), "Made 1 join token void.\n")
	same(t, cancelledText("administrator ada", 2), "Made 2 join tokens void.\n")
	same(t, cancelledText("ada", 0),
		"\"ada\" made no join token that is open; isthmus token list has the makers under BY.\n")
}

func TestAProxyNotSeenSinceTheStart(t *testing.T) {
	same(t, connected(adminapi.ProxyStatus{}, relative), "no")
}
