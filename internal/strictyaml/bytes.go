package strictyaml

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

// unreadable refuses bytes that are not valid configuration text or that display differently from what they mean.
func unreadable(text []byte) *finding.Finding {
	for i := 0; i < len(text); {
		if c := text[i]; c >= ' ' && c < 0x7f || c == '\n' || c == '\t' {
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		if message, remedy := oddRune(r, n, text[i:]); message != "" {
			f := finding.New(finding.Encoding, kind.Key{}, "",
				message, remedy).At("", bytes.Count(text[:i], []byte("\n")))
			return &f
		}
		i += n
	}
	return nil
}

// Characters that end a line for YAML but not for editors, and characters that change the display order.
const hidden = "\u0085\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

func oddRune(r rune, size int, rest []byte) (message, remedy string) {
	switch {
	case r == utf8.RuneError && size == 1:
		return fmt.Sprintf("byte 0x%02x is not UTF-8", rest[0]), "save the file as UTF-8"
	case r == 0:
		return "the document holds a NUL byte, so it is not text", "save it as UTF-8 without NUL bytes"
	case r == '\r' && (len(rest) < 2 || rest[1] != '\n'):
		return "a carriage return stands alone", "end lines with a line feed"
	case r != '\r' && (r < ' ' || r == 0x7f):
		return fmt.Sprintf("the control character U+%04X stands here", r), "remove it"
	case strings.ContainsRune(hidden, r):
		return fmt.Sprintf("the invisible character U+%04X stands here", r), "remove it"
	}
	return "", ""
}
