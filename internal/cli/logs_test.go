package cli

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestLogs(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write("access.default.payments.log", `{"time":"2026-11-22T11:59:00Z","log":"inbound","verdict":"denied","caller":"spiffe://cards.example/ns/default/sa/web","destination":"default/payments","reason":"no policy allows it","method":"GET","path":"/x","code":403,"tags":{"workload":"default/payments"}}
{"time":"2026-11-22T11:10:00Z","log":"inbound","verdict":"handshake","remote":"10.0.0.9","destination":"default/payments","reason":"a\u001b[2J","tags":{"workload":"default/payments"}}
not JSON
{"time":"2026-11-22T11:58:00Z"`)
	write("access.bank.log.1", `{"time":"2026-11-22T11:30:00Z","log":"egress","verdict":"allowed","caller":"spiffe://cards.example/ns/default/sa/web","destination":"loans","peer":"bank","method":"POST","path":"/l","code":200}
`)
	write("dns.log", `{"time":"2026-11-22T11:59:30Z","log":"dns"}`+"\n")
	got := run(t, "", "logs", "--run-dir", dir, "-o", "wide")
	expect(t, got, 0)
	same(t, got.out,
		"2026-11-22T11:10:00Z  handshake  10.0.0.9 → default/payments  (a?[2J)  from 10.0.0.9  inbound  0.0ms\n"+
			"2026-11-22T11:30:00Z  allowed  spiffe://cards.example/ns/default/sa/web → loans  peer bank  POST /l  200  from -  egress  0.0ms\n"+
			"2026-11-22T11:59:00Z  denied  spiffe://cards.example/ns/default/sa/web → default/payments  GET /x  403  (no policy allows it)  from -  inbound  0.0ms\n")
	for line, n := range map[string]int{
		"": 3, "--refused": 2, "--peer bank": 1, "--workload default/payments": 2, "--since 30m": 2, "--tail 1": 1,
		"--peer x": 0,
	} {
		got := run(t, "", append([]string{"logs", "--run-dir", dir, "-o", "json"}, strings.Fields(line)...)...)
		if got.code != 0 || strings.Count(got.out, "\n") != n {
			t.Errorf("logs %s: %d\n%s%s", line, got.code, got.out, got.err)
		}
	}
	for folder, want := range map[string]string{
		dir:         "No entry is like that",
		t.TempDir(): "There is no log there yet",
	} {
		expect(t, run(t, "", "logs", "--run-dir", folder, "--peer", "x"), 0, want)
	}
	for _, line := range []string{"", "--tail 0"} { // a hundred of them, unless told otherwise
		all := t.TempDir()
		var text strings.Builder
		for range 105 {
			text.WriteString(`{"time":"2026-11-22T11:00:00Z","log":"inbound","verdict":"denied"}` + "\n")
		}
		if err := os.WriteFile(filepath.Join(all, "access.x.log"), []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		want := map[string]int{"": 100, "--tail 0": 105}[line]
		if got := run(t, "", append([]string{"logs", "--run-dir", all},
			strings.Fields(line)...)...); strings.Count(got.out, "\n") != want {
			t.Errorf("logs %s of 105: %d lines, not %d", line, strings.Count(got.out, "\n"), want)
		}
	}
	expect(t, run(t, "", "logs", "--run-dir", dir+"/none"), 65, "no such file", "Next: run it as root")
}

// What an entry says in each format, and what its names cannot do to a terminal.
func TestLogFormats(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "access.x.log"), []byte(
		`{"time":"2026-11-22T11:59:07Z","log":"inbound","verdict":"denied","caller":"spiffe://bank.example/ns/a/sa/b",`+
			`"assertedBy":"spiffe://cards.example/ns/isthmus-system/sa/gateway","destination":"default/payments",`+
			`"reason":"a\u202eb","repeated":7}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{
		"table": `^\d\d:\d\d:07  denied  spiffe://bank\.example/ns/a/sa/b → default/payments  \(a\?b\)  ×7\n$`,
		"wide":  `  ×7  from -  inbound  0\.0ms  asserted by spiffe://cards\.example/ns/isthmus-system/sa/gateway\n$`,
		"json":  `^\{"time":"2026-11-22T11:59:07Z",.*"reason":"a\\u202eb",.*\}\n$`,
		"yaml":  `(?s)^---\nassertedBy: .*\nreason: "?a\\u202[eE]b"?\n.*\nverdict: denied\n$`,
	} {
		got := run(t, "", "logs", "--run-dir", dir, "-o", format)
		if expect(t, got, 0); !regexp.MustCompile(want).MatchString(got.out) {
			t.Errorf("-o %s: %q", format, got.out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "access.x.log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, run(t, "", "logs", "--run-dir", dir), 0,
		"Nothing was refused, and nothing crossed, as far as the files go back.")
}

// The filter by workload takes its calls and the calls to it.
func TestLogsOfACaller(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "access.default.web.log"), []byte(
		`{"time":"2026-11-22T11:59:07Z","log":"outbound","verdict":"failed","caller":"default/web","destination":"payments"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for workload, n := range map[string]int{"default/web": 1, "default/we": 0} {
		if got := run(t, "", "logs", "--run-dir", dir, "--workload", workload); strings.Count(got.out, "\n") != n {
			t.Errorf("of %s:\n%s%s", workload, got.out, got.err)
		}
	}
}

// Followed, a log goes on with what is written later, filtered alike, until the command is ended.
func TestLogsAreFollowed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.x.log")
	write := func(verdict, destination string) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(`{"log":"inbound","verdict":"` + verdict + `","destination":"` + destination + `"}` +
			"\n"); err != nil {
			t.Fatal(err)
		}
	}
	write("denied", "first")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, in := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- Main(ctx, []string{"logs", "-f", "--refused", "--run-dir", filepath.Dir(file)},
			World{Out: in, Err: io.Discard, Now: func() time.Time { return now }}, Verbs{})
		in.Close()
	}()
	lines := bufio.NewScanner(out)
	for _, want := range []string{"first", "second"} {
		if !lines.Scan() || !strings.HasSuffix(lines.Text(), "→ "+want) {
			t.Fatalf("%q instead of the %s entry", lines.Text(), want)
		}
		write("allowed", "something else")
		write("denied", "second")
	}
	cancel()
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if code := <-ended; code != 0 {
		t.Errorf("it ended with %d", code)
	}
}
