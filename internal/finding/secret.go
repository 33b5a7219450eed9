package finding

import "regexp"

// tokens matches the join and peering tokens that Isthmus issues. They are bearer secrets.
var tokens = regexp.MustCompile(`(isthmus-(?:join|peer)-v[0-9]+\.)[A-Za-z0-9_=-]+`)

// WithoutTokens redacts tokens in text for logs and records. People paste them where a name belongs.
func WithoutTokens(s string) string { return tokens.ReplaceAllString(s, "$1[redacted]") }
