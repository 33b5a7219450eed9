//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/waittest"
)

// A page of docs is tried as it is written, by hosts that are network namespaces with files of their own:
//
//	```sh
//	# at lab                          run there, command by command; "# at lab and bank": at both
//	isthmus control … &               goes on in the background, until the end of the page
//	isthmus status
//	```
//
//	```text                           what the last command prints: "…" is anything in a line, or, alone, any lines
//
//	```yaml
//	# /etc/isthmus/edge.yaml, at lab  a file
//
// A command that fails, or prints something else than it should, is tried again for a while: what was begun before it
// takes a moment. Blocks of other languages are for the reader. "scp FILE root@ADDRESS:" carries a file between homes.
type page struct {
	t     *testing.T
	lab   *lab.Lab
	hosts map[string]*pageHost
}

// pageHost is one host, in whose folder /etc, /run and /var/lib are its own.
type pageHost struct {
	name, netns string
	address     netip.Prefix
	keeper      *lab.Process // holds its mounts
	begun       int
}

// pageStep is what is done at one place of a page.
type pageStep struct {
	line     int
	at       []string
	file     string // with text as its content; empty for commands
	text     string
	commands []string
	prints   string // what the last command prints; with says so
	says     bool
}

var (
	pageFence = regexp.MustCompile("^```([a-z]*)$")
	pageAt    = regexp.MustCompile(`^# at ([a-z0-9, ]+)$`)
	pageFile  = regexp.MustCompile(`^# (/[^ ,]+), at ([a-z0-9, ]+)$`)
	pageAnd   = regexp.MustCompile(`,? and |, `)
)

// readPage finds what is to be done on a page.
func readPage(text string) (steps []pageStep, err error) {
	lines := strings.Split(text, "\n")
	for n := 0; n < len(lines); n++ {
		fence := pageFence.FindStringSubmatch(lines[n])
		if fence == nil {
			continue
		}
		end := n + 1
		for end < len(lines) && lines[end] != "```" {
			end++
		}
		if end == len(lines) {
			return nil, fmt.Errorf("line %d: the block does not end", n+1)
		}
		body, line := lines[n+1:end], n+1
		n = end
		switch fence[1] {
		case "sh":
			at := pageAt.FindStringSubmatch(first(body))
			if at == nil {
				return nil, fmt.Errorf("line %d: a block of commands must begin with \"# at HOST\"", line)
			}
			steps = append(steps, pageStep{line: line, at: pageAnd.Split(at[1], -1), commands: commandsOf(body[1:])})
		case "yaml":
			if at := pageFile.FindStringSubmatch(first(body)); at != nil {
				steps = append(steps, pageStep{
					line: line, file: at[1], at: pageAnd.Split(at[2], -1), text: strings.Join(body, "\n") + "\n",
				})
			}
		case "text":
			if len(steps) == 0 || steps[len(steps)-1].file != "" || steps[len(steps)-1].says {
				return nil, fmt.Errorf("line %d: no command comes before what is printed", line)
			}
			last := &steps[len(steps)-1]
			last.prints, last.says = strings.Join(body, "\n"), true
		}
	}
	return steps, nil
}

func first(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return lines[0]
}

// commandsOf takes lines that end in a backslash together, and leaves comments out.
func commandsOf(lines []string) (out []string) {
	for n := 0; n < len(lines); n++ {
		command := lines[n]
		for strings.HasSuffix(command, `\`) && n+1 < len(lines) {
			n++
			command += "\n" + lines[n]
		}
		if trimmed := strings.TrimSpace(command); trimmed != "" && !strings.HasPrefix(trimmed, "#") {
			out = append(out, command)
		}
	}
	return out
}

// printed says whether something was printed as a page says.
func printed(want, got string) bool {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, l := range strings.Split(strings.TrimSpace(want), "\n") {
		if strings.TrimSpace(l) == "…" {
			b.WriteString(`(?:.*\n)*`)
			continue
		}
		var parts []string
		for _, p := range strings.Split(strings.Join(strings.Fields(l), " "), "…") {
			parts = append(parts, regexp.QuoteMeta(p))
		}
		b.WriteString(strings.Join(parts, ".*") + `\n`)
	}
	var text strings.Builder
	for _, l := range strings.Split(strings.TrimSpace(got), "\n") {
		text.WriteString(strings.Join(strings.Fields(l), " ") + "\n")
	}
	return regexp.MustCompile(b.String() + `\z`).MatchString(text.String())
}

// runPage does what a page says, at hosts with these addresses, and returns them as they then are. What was done is
// undone at the end.
func runPage(t *testing.T, prefix, path string, hosts map[string]string) *page {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root, for example `sudo make test`")
	}
	text, err := os.ReadFile(path)
	must(t, err)
	steps, err := readPage(string(text))
	must(t, err)
	p := newPage(t, prefix, hosts)
	p.follow(t, path, steps)
	return p
}

// follow does what the steps say.
func (p *page) follow(t *testing.T, path string, steps []pageStep) {
	t.Helper()
	for _, s := range steps {
		for _, at := range s.at {
			if p.hosts[at] == nil {
				t.Fatalf("%s:%d: there is no host %q", path, s.line, at)
			}
			if err := p.do(p.hosts[at], s); err != nil {
				t.Fatalf("%s:%d, at %s: %v", path, s.line, at, err)
			}
		}
	}
}

// goOn does what more of a page would say.
func (p *page) goOn(t *testing.T, text string) {
	t.Helper()
	steps, err := readPage(text)
	must(t, err)
	p.follow(t, t.Name(), steps)
}

func newPage(t *testing.T, prefix string, hosts map[string]string) *page {
	t.Helper()
	wire := prefix + "-wire"
	n := lab.Network{Bridges: []lab.Bridge{{Namespace: wire}}}
	p := &page{t: t, hosts: map[string]*pageHost{}}
	for name, address := range hosts {
		h := &pageHost{name: name, netns: prefix + "-" + name, address: netip.MustParsePrefix(address)}
		n.Attachments = append(n.Attachments, lab.Attachment{
			Namespace: h.netns, Device: "eth0", Address: h.address, Bridge: wire, Port: "v-" + name,
		})
		p.hosts[name] = h
	}
	slices.SortFunc(n.Attachments, func(a, b lab.Attachment) int { return strings.Compare(a.Namespace, b.Namespace) })
	l, removed, err := lab.Open(lab.Config{Prefix: prefix, Dir: "/run/isthmus/" + prefix, Network: n})
	must(t, err)
	for _, r := range removed {
		t.Log("left by an earlier run:", r)
	}
	p.lab = l
	t.Cleanup(func() {
		if t.Failed() {
			p.tellLogs()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, prefix)
	})
	for _, h := range p.hosts {
		must(t, os.MkdirAll(p.home(h), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(l.Dir(), "scp"), []byte(carry), 0o755))
	for _, h := range p.hosts {
		must(t, p.begin(h))
	}
	return p
}

// carry is scp between the hosts of a page: what it carries is a file, and how does not matter here.
const carry = `#!/bin/sh
set -e
to=${2#root@}
cp "$1" "/run/homes/${to%:}/"
`

func (p *page) home(h *pageHost) string {
	return filepath.Join(p.lab.Dir(), "homes", h.address.Addr().String())
}

// ownFolders gives a host a copy of /etc and an empty /run and /var/lib, which nobody else sees.
const ownFolders = `set -e
mount -n --make-rprivate /
mkdir "$1/etc.$2"
cp -a /etc/. "$1/etc.$2/"
rm -rf "$1/etc.$2/isthmus" "$1/etc.$2/netns"
mount -n --bind "$1/etc.$2" /etc
mount -n -t tmpfs tmpfs /var/lib
mkdir "$1/run.$2"
mount -n -t tmpfs tmpfs "$1/run.$2"
mkdir "$1/run.$2/homes" "$1/run.$2/bin" "$1/run.$2/netns"
mount -n --bind "$1/homes" "$1/run.$2/homes"
cp "$1/scp" "$1/run.$2/bin/scp"
mount -n --move "$1/run.$2" /run
touch "/run/homes/$3/.ready"
exec sleep infinity
`

// begin makes a host's folders.
func (p *page) begin(h *pageHost) (err error) {
	h.keeper, err = p.lab.Start(lab.Command{
		Name: h.name, Namespace: h.netns, Path: "unshare",
		Args: []string{"-m", "sh", "-c", ownFolders, "sh", p.lab.Dir(), h.name, h.address.Addr().String()},
	})
	if err != nil {
		return err
	}
	ready := filepath.Join(p.home(h), ".ready")
	for late := time.Now().Add(30 * time.Second); ; waittest.Pace(20 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			return os.Remove(ready)
		}
		select {
		case <-h.keeper.Done():
			return fmt.Errorf("host %s: %w", h.name, h.keeper.Wait())
		default:
			if time.Now().After(late) {
				return fmt.Errorf("host %s does not get its folders", h.name)
			}
		}
	}
}

// command runs in a host's folders and network.
func (p *page) command(h *pageHost, name, text string) lab.Command {
	home := "/run/homes/" + h.address.Addr().String()
	return lab.Command{
		Name: h.name + "-" + name, Namespace: h.netns, Path: "nsenter",
		Args: []string{"-t", fmt.Sprint(h.keeper.PID()), "-m", "sh", "-c", "exec 2>&1; cd " + home + "\n" + text},
		Env:  []string{"PATH=/run/bin:" + binaries + ":" + os.Getenv("PATH"), "HOME=" + home},
	}
}

// pagePatience is how long a page waits for what it says.
const pagePatience = 30 * time.Second

func (p *page) do(h *pageHost, s pageStep) error {
	if s.file != "" {
		var in bytes.Buffer
		in.WriteString(s.text)
		c := p.command(h, "file", `mkdir -p "$(dirname `+s.file+`)" && cat > `+s.file)
		c.Stdin = &in
		return p.lab.Run(c)
	}
	for n, text := range s.commands {
		if background, ok := strings.CutSuffix(text, "&"); ok {
			h.begun++
			if _, err := p.lab.Start(p.command(h, fmt.Sprintf("%02d", h.begun), "exec "+background)); err != nil {
				return err
			}
			continue
		}
		says := s.says && n == len(s.commands)-1
		for late := time.Now().Add(pagePatience); ; waittest.Pace(200 * time.Millisecond) {
			var out bytes.Buffer
			c := p.command(h, "commands", text)
			c.Stdout = &out
			err := p.lab.Run(c)
			if err == nil && says && !printed(s.prints, out.String()) {
				err = errors.New("it prints something else")
			}
			if err == nil {
				break
			}
			if time.Now().After(late) {
				return fmt.Errorf("%s: %w:\n%s", text, err, out.String())
			}
		}
	}
	return nil
}

func (p *page) tellLogs() {
	logs, _ := filepath.Glob(filepath.Join(p.lab.Dir(), "logs", "*"))
	for _, l := range logs {
		tellEnd(p.t, l)
	}
}

func TestReadPage(t *testing.T) {
	text := "# Title\n\n```sh\n# at lab and bank\none \\\n  more\n# a remark\ntwo &\nthree\n```\n\n```text\nhello … world\n…\nend\n```\n" +
		"```yaml\n# /etc/x.yaml, at lab\na: b\n```\n```yaml\nfor: the reader\n```\n```console\n$ not run\n```\n"
	steps, err := readPage(text)
	must(t, err)
	if len(steps) != 2 {
		t.Fatalf("%+v", steps)
	}
	s := steps[0]
	if !slices.Equal(s.at, []string{"lab", "bank"}) ||
		!slices.Equal(s.commands, []string{"one \\\n  more", "two &", "three"}) || s.line != 3 {
		t.Errorf("%+v", s)
	}
	if f := steps[1]; f.file != "/etc/x.yaml" || f.text != "# /etc/x.yaml, at lab\na: b\n" ||
		!slices.Equal(f.at, []string{"lab"}) {
		t.Errorf("%+v", f)
	}
	for got, want := range map[string]bool{
		"hello  big world\nanything\nat all\nend\n": true, "hello world\nend": false, "hello the world\nend": true,
		"hello big world\n":          false,
		"hello big world\nend\nmore": false,
	} {
		if printed(s.prints, got) != want {
			t.Errorf("%q: %t", got, !want)
		}
	}
	for _, bad := range []string{"```sh\nls\n```\n", "```text\nnothing before\n```\n", "```sh\n# at lab\n"} {
		if _, err := readPage(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}
