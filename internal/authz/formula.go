package authz

import (
	"net/netip"
	"regexp"
	"strings"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/pathmatch"
)

// Formula is a condition on a request: All, Any, Not or a comparison.
type Formula interface{ Of(*Request) Truth }

// All holds when every element does. An empty All always holds.
type All []Formula

// Any holds when some element does. An empty Any never holds.
type Any []Formula

// Not is the negation.
type Not struct{ Formula Formula }

// The comparisons.
type (
	// Caller compares the SPIFFE ID in the caller's certificate.
	Caller struct{ Comparison }
	// Asserted compares the SPIFFE ID that a gateway asserts.
	Asserted struct{ Comparison }
	// Header compares a header or pseudo-header such as ":method".
	Header struct {
		Name string
		Comparison
	}
	// Path holds for any of several paths, either in every equivalent spelling or only as spelled.
	Path struct {
		Matches     []model.Match
		AnySpelling bool
	}
	// SNI compares the server name in the handshake.
	SNI struct{ Comparison }
	// Source compares the caller's address.
	Source netip.Prefix
	// Destination compares the workload's address.
	Destination netip.Prefix
	// Port compares the workload's port.
	Port uint16
)

// Of evaluates the formula.
func (f All) Of(r *Request) Truth {
	least := Always
	for _, g := range f {
		if least = min(least, g.Of(r)); least == Never {
			break
		}
	}
	return least
}

// Of evaluates the formula.
func (f Any) Of(r *Request) Truth {
	most := Never
	for _, g := range f {
		if most = max(most, g.Of(r)); most == Always {
			break
		}
	}
	return most
}

// Of evaluates the formula.
func (f Not) Of(r *Request) Truth { return Always - f.Formula.Of(r) }

// Of evaluates the comparison.
func (c Caller) Of(r *Request) Truth { return c.Comparison.of(r.Caller) }

// Of evaluates the comparison.
func (c Asserted) Of(r *Request) Truth { return c.Comparison.of(r.Asserted) }

// Of evaluates the comparison.
func (c Header) Of(r *Request) Truth { return c.Comparison.of(r.header(c.Name)) }

// Of evaluates the comparison.
func (c SNI) Of(r *Request) Truth { return c.Comparison.of(r.SNI) }

// Of evaluates the comparison.
func (c Source) Of(r *Request) Truth { return r.Source.in(netip.Prefix(c)) }

// Of evaluates the comparison.
func (c Destination) Of(r *Request) Truth { return r.Destination.in(netip.Prefix(c)) }

// Of evaluates the comparison.
func (c Port) Of(r *Request) Truth {
	if r.Port == 0 {
		return Maybe
	}
	return truth(r.Port == uint16(c))
}

// Of evaluates the comparison.
func (c Path) Of(r *Request) Truth {
	most := Never
	for _, m := range c.Matches {
		t := c.Test(m)
		if t.Plain != nil {
			most = max(most, Comparison{Match: *t.Plain}.of(r.Path))
		}
		if t.Regex != "" {
			most = max(most, Comparison{Regex: t.Regex}.of(r.Path))
		}
	}
	return most
}

// Test returns the test that a proxy applies for one of the paths.
func (c Path) Test(m model.Match) pathmatch.Test {
	if c.AnySpelling {
		return pathmatch.AnySpelling(m)
	}
	return pathmatch.Written(m)
}

// Comparison tests a string by Segment or Regex if one is set, else by Match.
type Comparison struct {
	Match      model.Match // exact, prefix, suffix or present
	IgnoreCase bool
	// Segment must follow Match's value, up to the next "/". "*" in it matches any characters.
	Segment string
	// Regex must match the whole string (RE2 syntax).
	Regex string
}

func (c Comparison) of(t Text) Truth {
	switch t.known {
	case whole:
		return truth(c.holds(t.value))
	case beginning:
		return c.compareBeginning(t.value)
	case absent:
		return Never
	}
	return Maybe
}

func (c Comparison) holds(v string) bool {
	switch {
	case c.Regex != "":
		return compileRegex(c.Regex).MatchString(v)
	case c.Segment != "":
		rest, ok := strings.CutPrefix(v, c.Match.Value)
		segment, _, more := strings.Cut(rest, "/")
		return ok && more && Glob(c.Segment, segment)
	case c.IgnoreCase:
		return Matches(model.Match{Kind: c.Match.Kind, Value: asciiLower(c.Match.Value)}, asciiLower(v))
	}
	return Matches(c.Match, v)
}

// compareBeginning compares a string of which only the beginning is known.
func (c Comparison) compareBeginning(v string) Truth {
	switch begins := strings.HasPrefix(c.Match.Value, v); {
	case c.Regex != "", c.IgnoreCase:
		return Maybe
	case c.Match.Kind == model.Present:
		return Always
	case c.Match.Kind == model.Suffix, begins:
		if c.Match.Kind == model.Prefix && c.Match.Value == v && c.Segment == "" {
			return Always
		}
		return Maybe
	case c.Segment != "":
		if rest, ok := strings.CutPrefix(v, c.Match.Value); ok && !strings.Contains(rest, "/") {
			return Maybe
		}
		return truth(c.holds(v))
	}
	return truth(c.Match.Kind == model.Prefix && strings.HasPrefix(v, c.Match.Value))
}

// asciiLower lowers ASCII letters only, as Envoy does.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

// compileRegex compiles an expression with Envoy's semantics: it matches the whole string, and \C is any byte.
func compileRegex(expression string) *regexp.Regexp {
	return regexp.MustCompile(`\A(?:` + strings.ReplaceAll(expression, `\C`, `(?s:.)`) + `)\z`)
}

// Matches compares a known string.
func Matches(m model.Match, v string) bool {
	switch m.Kind {
	case model.Exact:
		return v == m.Value
	case model.Prefix:
		return strings.HasPrefix(v, m.Value)
	case model.Suffix:
		return strings.HasSuffix(v, m.Value)
	case model.Present:
		return true
	}
	return false
}

// Glob matches a pattern with any number of "*", each standing for any characters.
func Glob(pattern, v string) bool {
	part, pattern, more := strings.Cut(pattern, "*")
	if !more {
		return part == v
	}
	v, ok := strings.CutPrefix(v, part)
	for ok {
		if part, pattern, more = strings.Cut(pattern, "*"); !more {
			return strings.HasSuffix(v, part)
		}
		_, v, ok = strings.Cut(v, part)
	}
	return false
}
