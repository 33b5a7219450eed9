package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/samples/probe"
)

// URLs and addresses that the tour uses.
const (
	chargesURL = "http://payments.default/v1/charges"
	headersURL = "http://payments.default/v1/charges/headers"
	watchURL   = "http://payments.default/v1/charges/watch"
	tillURL    = chargesURL + "/till"
)

const tryTimeout = 5 * time.Second

// command returns the command that runs the probe as a workload.
func (w *world) command(workload string) lab.Command {
	m, wl, _ := w.plan.find(workload)
	ns := w.plan.workloadNetns(m, wl)
	return lab.Command{
		Name: "probe-" + wl.name, Namespace: ns, Resolv: w.files.resolv(ns), Path: w.options.Samples,
		Args: []string{"probe"},
	}
}

// try makes one attempt as a workload.
func (w *world) try(workload string, req probe.Request) (probe.Result, error) {
	var r probe.Result
	in, err := json.Marshal(req)
	if err != nil {
		return r, err
	}
	var out bytes.Buffer
	c := w.command(workload)
	c.Stdin, c.Stdout = bytes.NewReader(append(in, '\n')), &out
	if err := w.lab.Run(c); err != nil {
		return r, fmt.Errorf("try as %s: %w", workload, err)
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return r, fmt.Errorf("try as %s: read the result: %w", workload, err)
	}
	return r, nil
}

func (w *world) get(workload, method, url string, headers map[string]string) (probe.Result, error) {
	return w.try(workload, probe.Request{HTTP: &probe.HTTP{
		Method: method, URL: url, Headers: headers, Timeout: tryTimeout,
	}})
}

func (w *world) connect(workload, address string) (probe.Result, error) {
	return w.try(workload, probe.Request{TCP: &probe.TCP{Address: address, Timeout: tryTimeout}})
}

// served asks payments, as the storefront, which program answers.
func (w *world) served() (string, error) {
	r, err := w.get("storefront", "GET", headersURL, nil)
	if err != nil {
		return "", err
	}
	if r.Status != 200 {
		return "", errors.New(outcome(r))
	}
	return r.Headers["served-by"], nil
}

// servedBy waits until the named program answers for payments.
func (w *world) servedBy(ctx context.Context, want string, limit time.Duration) error {
	return retry.Until(ctx, limit, 50*time.Millisecond, func(context.Context) error {
		got, err := w.served()
		if err == nil && got != want {
			err = fmt.Errorf("served by %s, not by %s", got, want)
		}
		return err
	})
}

// outcome summarises a result.
func outcome(r probe.Result) string {
	if r.Error != "" && r.Status == 0 {
		_, cause, found := strings.Cut(r.Error, `": `)
		if !found {
			cause = r.Error
		}
		return cause
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", r.Status, brief(r.Body)))
}

// brief shortens the first line of a refusal for a line of the tour.
func brief(body string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(body), "\n")
	line = longParts.ReplaceAllString(strings.TrimPrefix(line, "isthmus: "), "")
	if runes := []rune(line); len(runes) > 60 {
		line = string(runes[:60]) + "…"
	}
	return line
}

// longParts matches what is cut: the SPIFFE ID behind a workload's name, all but the name of a SPIFFE ID that stands
// alone, and the address behind a destination's name with all that follows.
var longParts = regexp.MustCompile(` \(spiffe://[^ )]*\)|spiffe://[^/ ]+/ns/[^/ ]+/sa/| at \d+\.\d+\.\d+\.\d+.*`)

// ongoing is an attempt that runs until it is stopped.
type ongoing struct {
	process *lab.Process
	stdin   *os.File
	stdout  *os.File
	results chan probe.Result // closed at its end
}

// begin starts a Watch or a Load as a workload.
func (w *world) begin(workload string, req probe.Request) (*ongoing, error) {
	in, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	return w.launch(w.command(workload), append(in, '\n'))
}

// launch starts a program that reads its task from standard input, ends when that is closed, and writes one result per
// line.
func (w *world) launch(c lab.Command, in []byte) (*ongoing, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inR.Close(), inW.Close())
	}
	c.Stdin, c.Stdout = inR, outW
	p, err := w.lab.Start(c)
	inR.Close()
	outW.Close()
	if err == nil {
		_, err = inW.Write(in)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("run %s in %s: %w", c.Name, c.Namespace, err), inW.Close(), outR.Close())
	}
	o := &ongoing{process: p, stdin: inW, stdout: outR, results: make(chan probe.Result, 8)}
	go o.read()
	return o, nil
}

func (o *ongoing) read() {
	defer close(o.results)
	defer o.stdout.Close()
	lines := bufio.NewScanner(o.stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r probe.Result
		if json.Unmarshal(lines.Bytes(), &r) == nil {
			o.results <- r
		}
	}
}

// next waits for the next result.
func (o *ongoing) next(ctx context.Context, limit time.Duration) (probe.Result, error) {
	select {
	case r, ok := <-o.results:
		if !ok {
			return r, fmt.Errorf("the attempt ended without a result: %w", o.process.Wait())
		}
		return r, nil
	case <-time.After(limit):
		return probe.Result{}, fmt.Errorf("nothing happened for %s", limit)
	case <-ctx.Done():
		return probe.Result{}, ctx.Err()
	}
}

// stop asks the attempt to end.
func (o *ongoing) stop() { o.stdin.Close() }

// end kills the attempt and waits until it is gone.
func (o *ongoing) end() {
	o.stop()
	o.process.Stop(time.Second)
}

// dial connects from a namespace without DNS or capture: gateways, hosts and the stranger.
func dial(ctx context.Context, namespace, address string) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	err = lab.Inside(namespace, func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}

// cause returns the innermost part of an error: "connection refused" of "dial tcp …: connect: connection refused".
func cause(err error) string {
	text := err.Error()
	for _, mark := range []string{"remote error: ", "connect: ", "read: "} {
		if i := strings.LastIndex(text, mark); i >= 0 {
			return text[i+len(mark):]
		}
	}
	return text
}

func readFile(dir, name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("read the demo's file: %w", err)
	}
	return b, nil
}
