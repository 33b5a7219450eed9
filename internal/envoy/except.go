package envoy

import (
	"maps"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// except is a regular expression for what begins with a prefix and is covered by none of the denied, which are exact values
// and prefixes; empty when nothing is left. Envoy's certificate check knows no "but not".
func except(prefix string, denied []model.Match) string {
	root := &branch{}
	for _, m := range denied {
		rest, below := strings.CutPrefix(m.Value, prefix)
		switch {
		case below:
			root.add(rest, m.Kind)
		case m.Kind == model.Prefix && strings.HasPrefix(prefix, m.Value):
			return ""
		}
	}
	rest := root.others()
	if rest == "" {
		return ""
	}
	return quote(prefix) + rest
}

// covers says whether an exact value or prefix matches a value.
func covers(m model.Match, value string) bool {
	if m.Kind == model.Prefix {
		return strings.HasPrefix(value, m.Value)
	}
	return m.Value == value
}

// branch is a tree of denied values, a byte a level.
type branch struct {
	next map[byte]*branch
	end  bool // a value ends here
	all  bool // whatever goes on from here is denied
}

func (b *branch) add(value string, kind model.MatchKind) {
	for i := range len(value) {
		if b.next == nil {
			b.next = map[byte]*branch{}
		}
		if b.next[value[i]] == nil {
			b.next[value[i]] = &branch{}
		}
		b = b.next[value[i]]
	}
	b.end = b.end || kind == model.Exact
	b.all = b.all || kind == model.Prefix
}

// others matches what is not in the tree: it ends elsewhere, goes another way, or goes on along a branch and is not in that.
func (b *branch) others() string {
	if b.all {
		return ""
	}
	var ways []string
	if len(b.next) == 0 {
		ways = append(ways, ".+")
	} else {
		letters := slices.Sorted(maps.Keys(b.next))
		ways = append(ways, "[^"+quoteClass(letters)+"].*")
		for _, c := range letters {
			if rest := b.next[c].others(); rest != "" {
				ways = append(ways, quote(string(c))+rest)
			}
		}
	}
	if !b.end {
		ways = append(ways, "")
	}
	return "(?:" + strings.Join(ways, "|") + ")"
}

// quoteClass escapes letters for a bracket expression.
func quoteClass(letters []byte) string {
	var out strings.Builder
	for _, c := range letters {
		if strings.IndexByte("\\]^-", c) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(c)
	}
	return out.String()
}
