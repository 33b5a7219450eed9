package istioyaml

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Patterns for scanning an unparsable document line by line.
var (
	comment       = regexp.MustCompile(`(?m)^[ \t]*#.*$`)
	headLine      = regexp.MustCompile(`(?m)^["']?(apiVersion|kind)["']?[ \t]*:[ \t]*["']?([^\s"',#]*)`)
	headAnywhere  = regexp.MustCompile(`["']?\b(apiVersion|kind)["']?\s*:\s*["']?([^\s"',#{}\]]*)`)
	metadataLine  = regexp.MustCompile(`(?m)^["']?metadata["']?[ \t]*:`)
	outdentedLine = regexp.MustCompile(`\n[^\s]`)
	nameLine      = regexp.MustCompile(`(?:^|[\s{,"'])name["']?[ \t]*:[ \t]*["']?([^\s"',#{}\]]*)`)
	namespaceLine = regexp.MustCompile(`(?:^|[\s{,"'])namespace["']?[ \t]*:[ \t]*["']?([^\s"',#}\]]*)`)
	escapedLetter = regexp.MustCompile(`\\(?:u00|x)([2-7][0-9a-fA-F])`)
	securityHead  = regexp.MustCompile(`(?i)\b(?:kind["']?\s*:\s*["']?` + anySecurityKind + `|` +
		`apiVersion["']?\s*:\s*["']?security\.istio\.io)`)
	securityWord = regexp.MustCompile(`(?i)security\.istio\.io|` + anySecurityKind)
)

// lost handles a document that cannot be parsed. Its lines show what it may be. A foreign kind is skipped as usual. A
// possible security kind closes the namespaces that it names, and default if an object names none.
func lost(text []byte, why finding.Finding) *document {
	// removing NUL makes UTF-16 searchable, too
	text = comment.ReplaceAll(bytes.ReplaceAll(text, []byte{0}, nil), nil)
	text = escapedLetter.ReplaceAllFunc(text, func(e []byte) []byte {
		n, _ := strconv.ParseUint(string(e[len(e)-2:]), 16, 8)
		return []byte{byte(n)}
	})
	h := scanHead(text)
	_, s, _ := h.stands()
	if (s == standsForeign || s == standsLater) && securityHead.Match(text) { // another object may run into it
		h, s = head{}, standsClosing
	}
	if h.kind == "" && s != standsForeign && securityWord.Match(text) {
		s = standsClosing
	}
	d := &document{}
	if _, known := kind.Named(h.kind); s == standsRefused && !known && bytes.Contains(text, []byte("{{")) {
		d.skipped = []skipped{{"unfilled template", 0}}
		// It may be the remains of a valid object, so no object is removed because it is missing.
		d.broken = []Broken{{placeless: true, Closed: snapshot.Closed{Reason: "it is an unfilled template"}}}
		return d
	}
	switch s {
	case standsForeign:
		d.skip(h, 0)
		return d
	case standsLater:
		d.later(h, 0)
		return d
	case standsRead:
		s = standsRefused
		if slices.Contains(securityKinds, h.kind) {
			s = standsClosing
		}
	}
	namespaces := scanNamespaces(text)
	h.namespace = namespaces[0]
	why.Object = h.key().Normal()
	d.findings = []finding.Finding{why}
	for _, ns := range namespaces {
		h.namespace = ns
		d.broken = append(d.broken, newBroken(h, s == standsClosing, why.Line, why.Message, nil))
	}
	return d
}

// scanHead scans lines for kind and name. Anything that occurs more than once is ambiguous and ignored.
func scanHead(text []byte) head {
	found := headLine.FindAllSubmatch(text, -1)
	if len(found) == 0 {
		found = headAnywhere.FindAllSubmatch(text, -1)
	}
	values := map[string][]string{}
	for _, m := range found {
		values[string(m[1])] = append(values[string(m[1])], string(m[2]))
	}
	only := func(list []string) string {
		if len(list) == 1 {
			return list[0]
		}
		return ""
	}
	h := head{apiVersion: only(values["apiVersion"]), kind: only(values["kind"])}
	if !finding.IsWord(h.kind) {
		h.kind = ""
	}
	if m := metadataLine.FindAllIndex(text, -1); len(m) == 1 {
		block := text[m[0][1]:]
		if end := outdentedLine.FindIndex(block); end != nil {
			block = block[:end[0]]
		}
		if names := nameLine.FindAllSubmatch(block, -1); len(names) == 1 {
			h.name = string(names[0][1])
		}
	}
	return h
}

// scanNamespaces returns all namespaces that a text names. "" stands for an object without one, which means default. A
// text with very many is treated as naming none.
func scanNamespaces(text []byte) []string {
	out := []string{}
	for _, m := range namespaceLine.FindAllSubmatch(text, -1) {
		ns := string(m[1])
		if ns == "" {
			ns = unreadableNamespace
		}
		out = append(out, ns)
	}
	if len(out) == 0 {
		out = append(out, "")
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) > MaxFindings {
		return []string{unreadableNamespace}
	}
	return out
}

// skip notes a document that does not concern Isthmus.
func (d *document) skip(h head, line int) {
	what := h.kind
	if what == "" || !finding.IsWord(what) {
		what = "document that is no object"
	}
	d.skipped = append(d.skipped, skipped{what, line})
}

// later notes a document of an Istio kind that is not implemented yet.
func (d *document) later(h head, line int) {
	d.findings = append(d.findings, finding.New("ISM0204", h.key().Normal(), "",
		strings.TrimSpace(finding.Clip(h.kind)+" ("+finding.Clip(h.apiVersion)+
			") is not carried out yet; it is skipped")).At("", line))
}
