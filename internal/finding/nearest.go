package finding

import "strings"

// Nearest returns the candidate that was most likely meant by name, or "" if none is close.
func Nearest(name string, candidates []string) string {
	best, bestDistance := "", 1+max(1, len(name)/3)
	if len(name) > 64 {
		return ""
	}
	for _, c := range candidates {
		if strings.EqualFold(strings.NewReplacer("_", "", "-", "").Replace(name), c) {
			return c
		}
		if d := Distance(strings.ToLower(name), strings.ToLower(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

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
	if n := Nearest(name, candidates); n != "" {
		return "did you mean " + n + "? It is one of: " + strings.Join(candidates, ", ")
	}
	if len(candidates) == 0 {
		return "remove it"
	}
	return "remove it, or use one of: " + strings.Join(candidates, ", ")
}
