package istioyaml

import (
	"bytes"

	"isthmus.dev/isthmus/internal/strictyaml"
)

// chunk is the text of one document and its first line in the file, from 1.
type chunk struct {
	text []byte
	line int
}

// split cuts a file at its document markers: "---" before a document or "..." after it, at the start of a line and
// followed only by white space. YAML forbids such lines inside scalars, so no parser is needed. A chunk includes its
// markers. Chunks without content are left out.
func split(text []byte) []chunk {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	var chunks []chunk
	begin, beginLine, line, content := 0, 1, 1, false
	flush := func(end int) {
		if content {
			chunks = append(chunks, chunk{text: text[begin:end], line: beginLine})
		}
		begin, beginLine, content = end, line, false
	}
	for at := 0; at < len(text); line++ {
		end := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		l := text[at:end]
		if strictyaml.IsMarker(l) {
			flush(at)
			l = l[3:]
		}
		if strictyaml.IsMark(l, "...") { // the end of a document; the next one may begin without a marker
			at = end
			line++
			flush(at)
			line--
			continue
		}
		// %YAML precedes a marker
		if t := bytes.TrimSpace(l); len(t) > 0 && t[0] != '#' && (content || l[0] != '%') {
			content = true
		}
		at = end
	}
	flush(len(text))
	return chunks
}
