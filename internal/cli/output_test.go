package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"

	"sigs.k8s.io/yaml"
)

// What other machines said reaches neither terminals nor logs as anything but text, in whatever format; data stays what it was.
func TestHiddenTextIsEscaped(t *testing.T) {
	said := map[string]string{
		"text": "a\u202eb\u2066c\u200bd\u009b31me\x7ff\u2028g\U000e0001h\x1b[2Ji", "plain": "ü 漢 🙂 \"quoted\" #not a comment", "lines": "one\ntwo\n",
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
