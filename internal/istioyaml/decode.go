// Package istioyaml decodes YAML into typed configuration objects and records the line of every field. It is strict: it
// refuses what it does not understand exactly, with file, line, field and remedy. An invalid object does not affect its
// neighbours. The package reads no files.
package istioyaml

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Limits on the input, in addition to those on a document (strictyaml).
const (
	MaxFileBytes    = 16 << 20
	MaxFindings     = 100   // of one document
	MaxFileFindings = 1_000 // of one file
	maxLists        = 8     // nesting of Lists
)

// Validator checks an object of Isthmus's own kinds against its schema. The document is JSON as map[string]any, int64,
// float64, string, bool and nil; it must not be modified. Only the code, field, message and remedy of a finding need to
// be set.
type Validator func(kind string, document map[string]any) []finding.Finding

// File is the content of one file. An unreadable part affects only itself.
type File struct {
	Name string
	// Objects in file order, each key once.
	Objects []*snapshot.Object
	// Broken are objects that could not be decoded.
	Broken []*Broken
	// Findings about the file.
	Findings []finding.Finding

	documents map[[sha256.Size]byte]*document
	skipped   map[string]int
}

// Decode decodes the documents of a file. Documents that previous (which may be nil) contained unchanged keep their
// objects, by pointer.
func Decode(name string, text []byte, validate Validator, previous *File) *File {
	f := &File{Name: name, documents: map[[sha256.Size]byte]*document{}, skipped: map[string]int{}}
	chunks := []chunk{{text: text, line: 1}}
	if len(text) <= MaxFileBytes {
		chunks = split(text)
	}
	place := placing{f: f, unknown: map[snapshot.Key]int{}}
	for _, c := range chunks {
		sum := sha256.Sum256(c.text)
		d, ok := f.documents[sum]
		if !ok && previous != nil {
			d, ok = previous.documents[sum]
		}
		switch {
		case ok:
		case len(c.text) > MaxFileBytes:
			d = lost(c.text, finding.New(finding.TooLarge, kind.Key{}, "",
				fmt.Sprintf("the file has more than %d bytes", MaxFileBytes),
				"split it into several files"))
		default:
			d = decodeDocument(c.text, validate)
		}
		d = d.at(name, c.line)
		f.documents[sum] = d
		place.add(d)
	}
	place.tellMore()
	f.refuseTwice()
	f.tellSkipped()
	finding.Sort(f.Findings)
	return f
}

// placing adds documents to a file.
type placing struct {
	f       *File
	unknown map[snapshot.Key]int // count of broken documents about which nothing more is known
	more    int                  // findings beyond the limit
}

func (p *placing) add(d *document) {
	p.f.Objects = append(p.f.Objects, d.objects...)
	for _, b := range d.broken {
		b.Origin.Source, b.Origin.File, b.Origin.Line = snapshot.SourceFile, p.f.Name, b.Origin.Line+d.line
		if !b.WholeKey() { // many of these say no more than one
			if p.unknown[b.Key]++; p.unknown[b.Key] > MaxFindings || p.unknown[b.Key] > 1 && !b.Security {
				continue
			}
		}
		p.f.Broken = append(p.f.Broken, &b)
	}
	for _, fd := range d.findings {
		if len(p.f.Findings) >= MaxFileFindings {
			p.more++
			continue
		}
		fd.File = p.f.Name
		fd.Line += d.line
		p.f.Findings = append(p.f.Findings, fd)
	}
	for _, s := range d.skipped {
		p.f.skipped[s.what]++
	}
}

func (p *placing) tellMore() {
	if p.more > 0 {
		p.f.Findings = append(p.f.Findings, finding.New(finding.TooLarge, kind.Key{}, "",
			fmt.Sprintf("there are %d more findings about this file", p.more),
			"correct those that are named first").At(p.f.Name, 0))
	}
}

// refuseTwice reports objects that a file contains twice. It is unclear which is meant, so neither counts.
func (f *File) refuseTwice() {
	if !f.anyTwice() {
		return
	}
	places := make(map[snapshot.Key][]snapshot.Origin, len(f.Objects))
	for _, o := range f.Objects {
		places[o.Key] = append(places[o.Key], o.Origin)
	}
	for _, b := range f.Broken {
		if b.WholeKey() {
			places[b.Key] = append(places[b.Key], b.Origin)
		}
	}
	var kept []*snapshot.Object
	reported := map[snapshot.Key]bool{}
	for n, o := range f.Objects {
		if len(places[o.Key]) == 1 {
			if kept != nil {
				kept = append(kept, o)
			}
			continue
		}
		if kept == nil {
			kept = append(make([]*snapshot.Object, 0, len(f.Objects)), f.Objects[:n]...)
		}
		other := places[o.Key][0].Line
		if other == o.Origin.Line {
			other = places[o.Key][1].Line
		}
		fd := finding.New("ISM-SCH21", o.Key, "metadata.name",
			fmt.Sprintf("the object is written at line %d of this file too, so neither of the two counts",
				other)).At(f.Name, o.Origin.LineOf("metadata.name"))
		f.Findings = append(f.Findings, fd)
		if !reported[o.Key] {
			reported[o.Key] = true
			k, _ := kind.Named(o.Key.Kind)
			f.Broken = append(f.Broken,
				&Broken{
					Security: k.Security(),
					Closed:   snapshot.Closed{Key: o.Key, Origin: o.Origin, Reason: fd.Message},
				})
		}
	}
	if kept != nil {
		f.Objects = kept
	}
}

func (f *File) anyTwice() bool {
	seen := make(map[snapshot.Key]struct{}, len(f.Objects))
	for _, o := range f.Objects {
		seen[o.Key] = struct{}{}
	}
	if len(seen) < len(f.Objects) {
		return true
	}
	return slices.ContainsFunc(f.Broken, func(b *Broken) bool {
		_, twice := seen[b.Key]
		return twice
	})
}

// tellSkipped reports, once per file, documents that do not concern Isthmus.
func (f *File) tellSkipped() {
	total, words := 0, []string{}
	for _, what := range slices.Sorted(maps.Keys(f.skipped)) {
		total += f.skipped[what]
		if len(words) < 10 {
			words = append(words, fmt.Sprintf("%d %s", f.skipped[what], what))
		}
	}
	if total == 0 {
		return
	}
	if len(words) < len(f.skipped) {
		words = append(words, "and others")
	}
	f.Findings = append(f.Findings, finding.New("ISM0203", kind.Key{}, "",
		"skipped, since no matter of Isthmus's: "+strings.Join(words, ", ")).At(f.Name, 0))
}

func hasErrors(fs []finding.Finding) bool {
	for _, f := range fs {
		if f.Severity == finding.Error {
			return true
		}
	}
	return false
}
