//go:build e2e

package node

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/waittest"
)

// TestHelperProgram is a workload's own program that knows SPIFFE, when startProgram starts it: ISTHMUS_TEST_PROGRAM is
// what it does, PEER whom it trusts. It ends when its standard input does.
func TestHelperProgram(t *testing.T) {
	what := os.Getenv("ISTHMUS_TEST_PROGRAM")
	if what == "" {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var err error
	switch what {
	case "fetch":
		fetchSVID(ctx)
	case "server":
		go io.Copy(io.Discard, &endsWithInput{cancel})
		err = serveSPIFFE(ctx)
	case "client":
		err = callSPIFFE(ctx)
	}
	if err != nil {
		fmt.Println("failed:", err)
	}
	os.Exit(0) // before the test runner adds its own lines
}

// endsWithInput calls cancel at the end of standard input.
type endsWithInput struct{ cancel context.CancelFunc }

func (e *endsWithInput) Read(b []byte) (int, error) {
	n, err := os.Stdin.Read(b)
	if err != nil {
		e.cancel()
	}
	return n, err
}

func fetchSVID(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	svid, err := workloadapi.FetchX509SVID(ctx)
	if err != nil {
		fmt.Println("refused:", status.Code(err))
		return
	}
	fmt.Println("got", svid.ID)
}

// serveSPIFFE says to each caller who it is.
func serveSPIFFE(ctx context.Context) error {
	l, err := spiffetls.Listen(ctx, "tcp", ":9443",
		tlsconfig.AuthorizeID(spiffeid.RequireFromString(os.Getenv("PEER"))))
	if err != nil {
		return err
	}
	fmt.Println("listening")
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if err := c.(interface{ Handshake() error }).Handshake(); err != nil {
				fmt.Println("refused:", err)
				return
			}
			id, err := spiffetls.PeerIDFromConn(c)
			fmt.Fprintln(c, id, err)
		}()
	}
}

// callSPIFFE does what its standard input says, a line an order.
func callSPIFFE(ctx context.Context) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	fmt.Println("ready")
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		words := strings.Fields(orders.Text())
		switch words[0] {
		case "call": // <address> <ID of the server>
			fmt.Println(callOnce(source, words[1], words[2]))
		case "keep": // <address> <ID of the server> <for how long>
			fmt.Println(keepCalling(source, words[1], words[2], words[3]))
		case "roots":
			bundle, err := source.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString(trustDomain))
			if err != nil {
				return err
			}
			fmt.Println(len(bundle.X509Authorities()), "roots")
		case "serial":
			svid, err := source.GetX509SVID()
			if err != nil {
				return err
			}
			fmt.Println("serial", svid.Certificates[0].SerialNumber)
		}
	}
	return nil
}

func callOnce(source *workloadapi.X509Source, address, id string) string {
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 2 * time.Second},
		Config:    tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(spiffeid.RequireFromString(id))),
	}
	c, err := d.Dial("tcp", address)
	if err != nil {
		return "failed: " + err.Error()
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "failed: " + err.Error()
	}
	said, err := io.ReadAll(c)
	if err != nil {
		return "failed: " + err.Error()
	}
	return "server sees " + strings.TrimSpace(string(said))
}

func keepCalling(source *workloadapi.X509Source, address, id, howLong string) string {
	most, err := time.ParseDuration(howLong)
	if err != nil {
		return err.Error()
	}
	calls, serials := 0, map[string]bool{}
	for end := time.Now().Add(most); time.Now().Before(end); calls++ {
		if got := callOnce(source, address, id); !strings.HasPrefix(got, "server sees ") {
			return fmt.Sprintf("call %d: %s", calls, got)
		}
		if svid, err := source.GetX509SVID(); err == nil {
			serials[svid.Certificates[0].SerialNumber.String()] = true
		}
		waittest.Pace(10 * time.Millisecond)
	}
	return fmt.Sprintf("%d calls, %d certificates", calls, len(serials))
}

// program is one that runs.
type program struct {
	t     *testing.T
	order io.WriteCloser
	lines chan string
}

// startProgram starts a program in a network namespace (empty: this one) as a user, with a workload's socket.
func startProgram(t *testing.T, binary, ns, socket, what, peer string, user uint32) *program {
	t.Helper()
	var attr *syscall.SysProcAttr
	if user != 0 {
		attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	}
	env := []string{"ISTHMUS_TEST_PROGRAM=" + what, "SPIFFE_ENDPOINT_SOCKET=unix://" + socket, "PEER=" + peer}
	return startProgramWith(t, binary, ns, "TestHelperProgram", env, attr)
}

// startProgramWith starts what a test of a binary does.
func startProgramWith(t *testing.T, binary, ns, test string, env []string, attr *syscall.SysProcAttr) *program {
	t.Helper()
	cmd := exec.Command(binary, "-test.run=^"+test+"$")
	cmd.Env, cmd.Dir, cmd.SysProcAttr = env, "/", attr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = cmd.Stdout
	must(t, netns.Do(ns, cmd.Start))
	p := &program{t: t, order: in, lines: make(chan string, 1000)}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
	}()
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return p
}

// next line that the program writes.
func (p *program) next(most time.Duration) string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			return "the program has ended"
		}
		return line
	case <-time.After(most):
		p.t.Fatalf("the program says nothing within %v", most)
		return ""
	}
}

// do gives an order and waits for the answer.
func (p *program) do(format string, args ...any) string {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.order, format+"\n", args...); err != nil {
		return err.Error()
	}
	return p.next(30 * time.Second)
}
