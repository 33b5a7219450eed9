package snapshot

import (
	"encoding/binary"
	"iter"
	"maps"
	"slices"
	"unique"
)

// Fields holds the line of each field of an object. It is comparable. Objects with the same layout share one text, so
// that tens of thousands of them cost no more than a few.
type Fields struct {
	text unique.Handle[string] // for each field its line, the length of its path, and its path
}

// FieldsOf returns the fields of an object, given the line of each field path ("spec.to[0].peer").
func FieldsOf(lines map[string]int) Fields {
	if len(lines) == 0 {
		return Fields{}
	}
	var text []byte
	for _, path := range slices.Sorted(maps.Keys(lines)) {
		text = binary.AppendVarint(text, int64(lines[path]))
		text = binary.AppendUvarint(text, uint64(len(path)))
		text = append(text, path...)
	}
	return Fields{unique.Make(string(text))}
}

// line returns the line of a field path.
func (f Fields) line(path string) (int, bool) {
	if f == (Fields{}) {
		return 0, false
	}
	for text := []byte(f.text.Value()); len(text) > 0; {
		line, n := binary.Varint(text)
		size, m := binary.Uvarint(text[n:])
		text = text[n+m:]
		if string(text[:size]) == path {
			return int(line), true
		}
		text = text[size:]
	}
	return 0, false
}

// Enclosing returns a field path and the paths of its enclosing fields, the innermost first.
func Enclosing(field string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for f := field; f != ""; f = parentField(f) {
			if !yield(f) {
				return
			}
		}
	}
}

func parentField(f string) string {
	for i := len(f) - 1; i > 0; i-- {
		if f[i] == '.' || f[i] == '[' {
			return f[:i]
		}
	}
	return ""
}
