package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/durable"
	"isthmus.dev/isthmus/internal/finding"
)

// draftedBy starts every file that this command line writes to a configuration. Only such files are replaced.
const draftedBy = "# Written by isthmus "

// drafted shows the drafted objects, or writes them if requested.
func (a *app) drafted(cmd *cobra.Command, resp *adminapi.DraftResponse, command, write string) error {
	defer func() { fmt.Fprint(a.Err, draftText(*resp)) }()
	if write != "" {
		path, changed, err := writeDraft(write, *resp, command)
		if err != nil {
			return err
		}
		if changed {
			fmt.Fprintf(a.Err, "Written: %s\n", path)
		} else {
			fmt.Fprintf(a.Err, "%s says so already.\n", path)
		}
		return nil
	}
	if a.output == formatJSON {
		return a.print(resp, nil)
	}
	_, err := fmt.Fprint(a.Out, draftedBy+command+"\n"+escaped(resp.YAML))
	return err
}

// draftText formats what a draft contains besides its objects.
func draftText(r adminapi.DraftResponse) string {
	var b strings.Builder
	for _, n := range r.Notes {
		b.WriteString(wrap(n, 80) + "\n")
	}
	for _, o := range r.Objects {
		name := fmt.Sprintf("%s %s/%s", o.Kind, o.Namespace, o.Name)
		switch {
		case o.Same:
			b.WriteString(wrap(fmt.Sprintf("%s is in force as it is (%s).", name, o.Stands), 80) + "\n")
		case o.Stands != "":
			b.WriteString(wrap(fmt.Sprintf("%s stands in %s and says something else: this is to take its place.",
				name, o.Stands), 80) + "\n")
		}
	}
	if fs := reportable(r.Findings); len(fs) > 0 {
		b.WriteString("It would have findings:\n" + findingsText(fs, false))
	}
	return b.String()
}

func reportable(all []finding.Finding) (out []finding.Finding) {
	for _, f := range all {
		if f.Severity != finding.Info {
			out = append(out, f)
		}
	}
	return out
}

// wrap breaks a text at spaces into lines of at most columns, if possible.
func wrap(text string, columns int) string {
	var b strings.Builder
	at := 0
	for n, word := range strings.Fields(text) {
		size := len([]rune(word))
		switch {
		case n == 0:
		case at+1+size > columns:
			b.WriteByte('\n')
			at = 0
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += size
	}
	return b.String()
}

// writeDraft writes the objects to a file, or to a file named after them in a folder. It never replaces a file that it
// did not write.
func writeDraft(path string, r adminapi.DraftResponse, command string) (written string, changed bool, err error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, filepath.Base(r.File))
	}
	content := []byte(draftedBy + command + "\n" + escaped(r.YAML))
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", false, badInput("choose another --write", "write the objects: %s", err)
	case bytes.Equal(old, content):
		return path, false, nil
	case !bytes.HasPrefix(old, []byte(draftedBy)):
		return "", false, badInput("choose another --write, or take it into the file by hand",
			"%s was not written by this command and is left alone", path)
	}
	// not a secret, and the control plane may run as another user
	if err := durable.WriteFileAs(path, content, 0o644); err != nil {
		return "", false, badInput("choose another --write", "write the objects: %s", err)
	}
	return path, true, nil
}
