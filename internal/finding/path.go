package finding

// Child is the path of a key: parent.key, or parent[key] for a key that is no plain word.
func Child(parent, key string) string {
	switch {
	case !IsWord(key):
		return parent + "[" + key + "]"
	case parent == "":
		return key
	default:
		return parent + "." + key
	}
}

// IsWord says whether a key can stand in a path as it is.
func IsWord(s string) bool {
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}
