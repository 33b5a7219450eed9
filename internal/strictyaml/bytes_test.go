package strictyaml

import "testing"

func TestUnreadable(t *testing.T) {
	for text, want := range map[string]string{
		"a: 1\r\n\tb: ü 漢 🙂\n": "",
		"a\n\x00":              "the document holds a NUL byte, so it is not text",
		"a\n\xff":              "byte 0xff is not UTF-8",
		"a\n\rb":               "a carriage return stands alone",
		"a\nb\r":               "a carriage return stands alone",
		"a\n\x1b[2J":           "the control character U+001B stands here",
		"a\n\u202eb":           "the invisible character U+202E stands here",
		"a\n\u2028b":           "the invisible character U+2028 stands here",
	} {
		switch f := unreadable([]byte(text)); {
		case f == nil && want != "":
			t.Errorf("%q passes, want: %s", text, want)
		case f != nil && (f.Message != want || f.Line != 1):
			t.Errorf("%q: line %d: %s, want line 1: %s", text, f.Line, f.Message, want)
		}
	}
}
