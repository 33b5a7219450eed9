package finding

import "strings"

// Clip shortens foreign text for a message.
func Clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:77], "") + "…"
	}
	return s
}

// MaxText bounds a short text that somebody else chose and that only shows, in bytes.
const MaxText = 256

// Cut is such a text, no longer than MaxText.
func Cut(s string) string { return strings.ToValidUTF8(s[:min(len(s), MaxText)], "") }
