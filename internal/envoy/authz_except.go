package envoy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// The bounds of such an expression. Envoy makes a program of it, of some eight instructions for each character in the
// tree of what is denied, and takes programs of 65536 (envoyproc's bootstrap says so), with brackets that nest up to
// 1000 deep.
const (
	maxBranches = 6000
	maxNested   = 330
)

// except is a regular expression for what begins with a prefix and is covered by none of the denied, which are exact
// values and prefixes; empty when nothing is left. Envoy's certificate check knows no "but not". It is not done where
// the expression would be too large for Envoy.
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

// coverage is a set of exact values and prefixes. Policies name thousands of each, so that looking at all of them for
// each caller would take minutes.
type coverage struct {
	exact, prefixes map[string]bool
	lengths         []int // of the prefixes, each once
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

// covers says whether an exact value or prefix matches a value.
func (c coverage) covers(value string) bool {
	return c.exact[value] ||
		slices.ContainsFunc(c.lengths, func(n int) bool { return n <= len(value) && c.prefixes[value[:n]] })
}

// branch is a tree of denied values, a byte a level.
type branch struct {
	next map[byte]*branch
	end  bool // a value ends here
	all  bool // whatever goes on from here is denied
}

// add says how many branches it made.
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

// others matches what is not in the tree: it ends elsewhere, goes another way, or goes on along a branch and is not in
// that.
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

// visible are all characters that an identity can have. They are bytes of ASCII: a class that holds others as well
// costs Envoy ten times as much.
const visible = "[!-~]"

// visibleBut is a class of the visible characters without some, which are sorted; empty when none is left.
func visibleBut(letters []byte) string {
	var out strings.Builder
	from := byte('!')
	add := func(to byte) { // up to, and without
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
