package envoy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// Limits of such an expression. Envoy compiles it to about eight instructions for each character in the tree of denied
// values, and accepts at most 65536 instructions (set in envoyproc's bootstrap) and brackets nested 1000 deep.
const (
	maxBranches = 6000
	maxNested   = 330
)

// except returns a regular expression for what starts with prefix and is not covered by denied (exact values and
// prefixes); empty if nothing is left. Envoy's certificate check has no negation. done is false if the expression would
// be too large for Envoy.
func except(prefix string, denied []model.Match) (expression string, done bool) {
	root, size := &branch{}, 0
	for _, m := range denied {
		rest, below := strings.CutPrefix(m.Value, prefix)
		switch {
		case below:
			size += root.add(rest, m.Kind)
			if size > maxBranches || len(rest) > maxNested {
				return "", false
			}
		case m.Kind == model.Prefix && strings.HasPrefix(prefix, m.Value):
			return "", true
		}
	}
	rest := root.others()
	if rest == "" {
		return "", true
	}
	return quote(prefix) + rest, true
}

// coverage is a set of exact values and prefixes, indexed because policies may name thousands of each.
type coverage struct {
	exact, prefixes map[string]bool
	lengths         []int // of the prefixes, distinct
}

func coverageOf(ms []model.Match) coverage {
	c := coverage{exact: map[string]bool{}, prefixes: map[string]bool{}}
	for _, m := range ms {
		if m.Kind == model.Prefix {
			c.prefixes[m.Value] = true
			c.lengths = append(c.lengths, len(m.Value))
		} else {
			c.exact[m.Value] = true
		}
	}
	slices.Sort(c.lengths)
	c.lengths = slices.Compact(c.lengths)
	return c
}

// covers reports whether an exact value or prefix matches.
func (c coverage) covers(value string) bool {
	return c.exact[value] ||
		slices.ContainsFunc(c.lengths, func(n int) bool { return n <= len(value) && c.prefixes[value[:n]] })
}

// branch is a node of a byte-wise tree of denied values.
type branch struct {
	next map[byte]*branch
	end  bool // a value ends here
	all  bool // everything below is denied
}

// add returns the number of branches that it created.
func (b *branch) add(value string, kind model.MatchKind) (made int) {
	for i := range len(value) {
		if b.next == nil {
			b.next = map[byte]*branch{}
		}
		if b.next[value[i]] == nil {
			b.next[value[i]] = &branch{}
			made++
		}
		b = b.next[value[i]]
	}
	b.end = b.end || kind == model.Exact
	b.all = b.all || kind == model.Prefix
	return made
}

// others returns an expression for what is not in the tree: strings that end elsewhere, leave the tree, or follow a
// branch and are not in that.
func (b *branch) others() string {
	if b.all {
		return ""
	}
	var ways []string
	letters := slices.Sorted(maps.Keys(b.next))
	if others := visibleBut(letters); others != "" {
		ways = append(ways, others+visible+"*")
	}
	for _, c := range letters {
		if rest := b.next[c].others(); rest != "" {
			ways = append(ways, quote(string(c))+rest)
		}
	}
	if !b.end {
		ways = append(ways, "")
	}
	return "(?:" + strings.Join(ways, "|") + ")"
}

// visible matches all characters that a SPIFFE ID can contain. They are ASCII; a class with other characters costs
// Envoy ten times as much.
const visible = "[!-~]"

// visibleBut returns the class of visible characters without letters, which are sorted; empty if none is left.
func visibleBut(letters []byte) string {
	var out strings.Builder
	from := byte('!')
	add := func(to byte) { // up to to, exclusive
		if from < to {
			fmt.Fprintf(&out, `\x%02x-\x%02x`, from, to-1)
		}
	}
	for _, c := range letters {
		if c >= '!' && c <= '~' {
			add(c)
			from = c + 1
		}
	}
	add('~' + 1)
	if out.Len() == 0 {
		return ""
	}
	return "[" + out.String() + "]"
}
