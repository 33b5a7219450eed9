package finding

import "regexp"

// tokens are those that Isthmus makes, for nodes and for peers: whoever reads one can use it.
var tokens = regexp.MustCompile(`(isthmus-(?:join|peer)-v[0-9]+\.)[A-Za-z0-9_=-]+`)

// WithoutTokens is a text for a log or a record without the tokens in it: people paste them where a name belongs.
func WithoutTokens(s string) string { return tokens.ReplaceAllString(s, "$1[redacted]") }
