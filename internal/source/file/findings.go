package file

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

// maxKept limits the findings about objects of one file that stay as they were.
const maxKept = 20

func (d *folder) findings() []finding.Finding {
	out := slices.Collect(maps.Values(d.trouble))
	for _, f := range d.telling {
		if f.current != nil {
			out = append(out, f.current.Findings...)
		}
		out = append(out, f.stayed...)
	}
	out = append(out, d.objects.findings()...)
	finding.Sort(out)
	return out
}

func (d *folder) vanishedFinding(l listing) finding.Finding {
	f := finding.New("ISM-SRC03", kind.Key{}, "",
		"all configuration files are gone; the last good state stays in effect").At(d.root, 0)
	if err := l.errs[d.root]; err != nil {
		f.Message = fmt.Sprintf("the configuration folder cannot be read (%v); the last good state stays in effect",
			cause(err))
		f.Remedy = "bring the folder back, or make it readable"
	}
	return f
}

// stayed reports the objects of a file that stay as they were.
func stayed(path string, entries []entry) []finding.Finding {
	var out []finding.Finding
	n := 0
	for _, e := range entries {
		if e.object == nil || e.broken == nil {
			continue
		}
		if n++; n > maxKept {
			continue
		}
		message := "it cannot be read as it is now"
		if e.broken.Key != e.key {
			message = "something that may be it cannot be read"
		}
		out = append(out, finding.New("ISM-SRC01", e.key, "",
			fmt.Sprintf("%s, so it stays as it was at %s", message,
				e.since.UTC().Format(time.RFC3339))).At(path, e.broken.Origin.Line))
	}
	if n > maxKept {
		out = append(out, finding.New("ISM-SRC01", kind.Key{}, "",
			fmt.Sprintf("%d more objects stay as they were", n-maxKept)).At(path, 0))
	}
	return out
}

func (d *folder) unread(path string, err error) finding.Finding {
	f := finding.New("ISM-SRC02", kind.Key{}, "",
		fmt.Sprintf("cannot be read: %v", cause(err))).At(path, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Remedy = "create it, or name another folder"
	case errors.Is(err, errLongPath):
		f.Remedy = "move it to a shorter path"
	}
	return f
}

// cause returns an error without the path, which the finding already contains.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
