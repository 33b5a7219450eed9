package authz

import (
	"net/netip"
	"regexp"
	"strings"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/pathmatch"
)

// Formula is a condition on a request: All, Any or Not of others, or one of the comparisons.
type Formula interface{ Of(*Request) Truth }

// All holds when each does; without any, always.
type All []Formula

// Any holds when one does; without any, never.
type Any []Formula

// Not holds when the other does not.
type Not struct{ Formula Formula }

// The comparisons.
type (
	// Caller compares the SPIFFE ID in the caller's certificate.
	Caller struct{ Comparison }
	// Asserted compares the SPIFFE ID that a gateway names.
	Asserted struct{ Comparison }
	// Header compares a header, or ":method" and the like.
	Header struct {
		Name string
		Comparison
	}
	// Path holds for one of a list of paths: in every spelling, or as they are written.
	Path struct {
		Matches     []model.Match
		AnySpelling bool
	}
	// SNI compares the server name of the handshake.
	SNI struct{ Comparison }
	// Source compares the address of the caller.
	Source netip.Prefix
	// Destination compares the address of the workload.
	Destination netip.Prefix
	// Port compares the port of the workload.
	Port uint16
)

// Of says whether the formula holds.
func (f All) Of(r *Request) Truth {
	least := Always
	for _, g := range f {
		if least = min(least, g.Of(r)); least == Never {
			break
		}
	}
	return least
}

// Of says whether the formula holds.
func (f Any) Of(r *Request) Truth {
	most := Never
	for _, g := range f {
		if most = max(most, g.Of(r)); most == Always {
			break
		}
	}
	return most
}

// Of says whether the formula holds.
func (f Not) Of(r *Request) Truth { return Always - f.Formula.Of(r) }

// Of says whether the comparison holds.
func (c Caller) Of(r *Request) Truth { return c.Comparison.of(r.Caller) }

// Of says whether the comparison holds.
func (c Asserted) Of(r *Request) Truth { return c.Comparison.of(r.Asserted) }

// Of says whether the comparison holds.
func (c Header) Of(r *Request) Truth { return c.Comparison.of(r.header(c.Name)) }

// Of says whether the comparison holds.
func (c SNI) Of(r *Request) Truth { return c.Comparison.of(r.SNI) }

// Of says whether the comparison holds.
func (c Source) Of(r *Request) Truth { return r.Source.in(netip.Prefix(c)) }

// Of says whether the comparison holds.
func (c Destination) Of(r *Request) Truth { return r.Destination.in(netip.Prefix(c)) }

// Of says whether the comparison holds.
func (c Port) Of(r *Request) Truth {
	if r.Port == 0 {
		return Maybe
	}
	return truth(r.Port == uint16(c))
}

// Of says whether the comparison holds.
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

// Test is how a proxy compares one of the paths.
func (c Path) Test(m model.Match) pathmatch.Test {
	if c.AnySpelling {
		return pathmatch.AnySpelling(m)
	}
	return pathmatch.Written(m)
}

// Comparison is how a text is compared: by Match, or by Segment or Regex where one is set.
type Comparison struct {
	Match      model.Match // exact, prefix, suffix or present
	IgnoreCase bool
	// Segment follows Match's value, up to the next "/"; "*" in it is any run of characters.
	Segment string
	// Regex is of the whole text, in RE2's syntax.
	Regex string
}

func (c Comparison) of(t Text) Truth {
	switch t.known {
	case whole:
		return truth(c.holds(t.value))
	case beginning:
		return c.begun(t.value)
	case absent:
		return Never
	}
	return Maybe
}

func (c Comparison) holds(v string) bool {
	switch {
	case c.Regex != "":
		return compiled(c.Regex).MatchString(v)
	case c.Segment != "":
		rest, ok := strings.CutPrefix(v, c.Match.Value)
		segment, _, more := strings.Cut(rest, "/")
		return ok && more && Glob(c.Segment, segment)
	case c.IgnoreCase:
		return Matches(model.Match{Kind: c.Match.Kind, Value: lower(c.Match.Value)}, lower(v))
	}
	return Matches(c.Match, v)
}

// begun compares a text of which only the beginning is known.
func (c Comparison) begun(v string) Truth {
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

// lower changes letters of ASCII, as Envoy does.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

// compiled reads an expression as Envoy does: of the whole text, where \C is any byte.
func compiled(expression string) *regexp.Regexp {
	return regexp.MustCompile(`\A(?:` + strings.ReplaceAll(expression, `\C`, `(?s:.)`) + `)\z`)
}

// Matches compares a text that is there.
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

// Glob compares with any number of "*", each standing for any run of characters.
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
