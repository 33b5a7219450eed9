package finding

import "strings"

// Clip shortens untrusted text for a message.
func Clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:77], "") + "…"
	}
	return s
}

// MaxText is the maximum length in bytes of short free text that is only displayed.
const MaxText = 256

// Truncate cuts such a text to MaxText bytes of valid UTF-8.
func Truncate(s string) string { return strings.ToValidUTF8(s[:min(len(s), MaxText)], "") }
