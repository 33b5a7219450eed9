// Package istioyaml turns YAML text into typed configuration objects and remembers the line of every field. It is strict:
// what it does not understand exactly it refuses, with the file, line, field and remedy. It reads no files itself.
package istioyaml

import (
	"crypto/sha256"
	"fmt"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
)

// The bounds of what is read.
const (
	MaxFileBytes     = 16 << 20
	MaxDocumentBytes = 1 << 20
	MaxDepth         = 64
	MaxNodes         = 50_000 // values in one document
	MaxAliased       = 1_000  // values in one document that aliases repeat
	MaxFindings      = 100    // of one document
)

// Validator checks an object of Isthmus's own kinds against its schema. The document is JSON as map[string]any, int64,
// float64, string, bool and nil, and must not be changed. Findings need only code, field, message and remedy.
type Validator func(kind string, document map[string]any) []finding.Finding

// Object is one object as it was written: Value is a pointer to the Go type of its kind, never written after decoding.
type Object struct {
	Key    snapshot.Key
	Value  any
	Origin snapshot.Origin
}

// same says that two objects are one and stand at the same place.
func (o *Object) same(p *Object) bool {
	return o.Value == p.Value && o.Origin.File == p.Origin.File && o.Origin.Line == p.Origin.Line
}

// File is what one file holds.
type File struct {
	Name string
	// Objects in the order of the file.
	Objects []*Object
	// Findings about the file. If one of them is an error the file as a whole is not to be used.
	Findings []finding.Finding

	documents map[[sha256.Size]byte]*document
}

// Broken says that the file must not take effect.
func (f *File) Broken() bool { return hasErrors(f.Findings) }

// document is one decoded YAML document, its lines counted from 0, so that it stays true wherever it stands in a file.
type document struct {
	objects  []Object
	findings []finding.Finding
}

// Decode reads the documents of one file. Documents that previous (may be nil) already held, word for word, keep their
// objects, the very same pointers.
func Decode(name string, text []byte, validate Validator, previous *File) *File {
	f := &File{Name: name, documents: map[[sha256.Size]byte]*document{}}
	if bad := unreadable(text); bad != nil {
		bad.File = name
		f.Findings = []finding.Finding{*bad}
		return f
	}
	for _, c := range split(text) {
		sum := sha256.Sum256(c.text)
		d, ok := f.documents[sum]
		if !ok && previous != nil {
			d, ok = previous.documents[sum]
		}
		if !ok {
			d = decodeDocument(c.text, validate)
		}
		f.documents[sum] = d
		f.add(d, c.line, previous)
	}
	f.refuseTwice()
	finding.Sort(f.Findings)
	return f
}

// add places a document at its line of the file. What did not even move is the previous file's.
func (f *File) add(d *document, line int, previous *File) {
	for _, o := range d.objects {
		o.Origin.File = f.Name
		o.Origin.Line += line
		at := len(f.Objects)
		if previous != nil && at < len(previous.Objects) && o.same(previous.Objects[at]) {
			f.Objects = append(f.Objects, previous.Objects[at])
		} else {
			f.Objects = append(f.Objects, &o)
		}
	}
	for _, fd := range d.findings {
		fd.File = f.Name
		fd.Line += line
		f.Findings = append(f.Findings, fd)
	}
}

// refuseTwice reports objects written twice in this file.
func (f *File) refuseTwice() {
	first := make(map[snapshot.Key]int, len(f.Objects))
	for _, o := range f.Objects {
		line, twice := first[o.Key]
		if !twice {
			first[o.Key] = o.Origin.Line
			continue
		}
		f.Findings = append(f.Findings, finding.Finding{
			Code: CodeTwice, Object: o.Key.String(), Field: "metadata.name", File: f.Name, Line: o.Origin.LineOf("metadata.name"),
			Message: fmt.Sprintf("the object is written twice in this file, first at line %d", line),
			Remedy:  "keep one of the two, or give one another name",
		})
	}
}

func hasErrors(fs []finding.Finding) bool {
	for _, f := range fs {
		if f.Severity == finding.Error {
			return true
		}
	}
	return false
}
