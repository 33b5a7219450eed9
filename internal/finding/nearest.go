package finding

import "strings"

// maxNear bounds the names that are compared, in bytes: two parts of the length of a DNS label, or a host of a Service.
const maxNear = 160

// Nearest returns the candidate that was most likely meant by name, or "" if none is close. A name of several parts
// (namespace/name, a host) is close to one with as many parts, each of them close to its counterpart.
func Nearest(name string, candidates []string) string {
	if len(name) > maxNear {
		return ""
	}
	best, bestDistance := "", maxNear
	for _, c := range candidates {
		if len(c) > maxNear {
			continue
		}
		if strings.EqualFold(strings.NewReplacer("_", "", "-", "").Replace(name), c) {
			return c
		}
		if d, near := nearness(strings.ToLower(name), strings.ToLower(c)); near && d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// nearness returns the distance of two names, and whether each part of the one may be its counterpart in the other but
// for a slip of the pen.
func nearness(name, candidate string) (distance int, near bool) {
	parts, others := strings.FieldsFunc(name, separates), strings.FieldsFunc(candidate, separates)
	if len(parts) != len(others) {
		d := Distance(name, candidate)
		return d, d <= 1
	}
	for i, part := range parts {
		d := Distance(part, others[i])
		if d > max(1, len(part)/3) {
			return 0, false
		}
		distance += d
	}
	return distance, len(parts) > 0
}

// separates reports whether a character stands between the parts of a name.
func separates(r rune) bool { return r == '/' || r == '.' }

// Distance returns the number of edits between two short strings. Swapping two neighbours counts as one edit.
func Distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// DidYouMean returns the remedy for an unknown name.
func DidYouMean(name string, candidates []string) string {
	n := Nearest(name, candidates)
	switch {
	case n != "" && len(candidates) == 1:
		return "did you mean " + n + "?"
	case n != "":
		return "did you mean " + n + "? It is one of: " + strings.Join(candidates, ", ")
	case len(candidates) == 0:
		return "remove it"
	}
	return "remove it, or use one of: " + strings.Join(candidates, ", ")
}
