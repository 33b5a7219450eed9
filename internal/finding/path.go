package finding

// Child returns the path of a key: parent.key, or parent[key] if the key is not a plain word.
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

// IsWord reports whether a key can appear in a path unquoted.
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
