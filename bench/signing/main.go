// Command signing measures what a certificate costs: one raw signature, one certificate from a request by the standard
// library alone, and one from the real control plane over gRPC. All as a rate per second of CPU, so that they compare.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/bench/proc"
	"isthmus.dev/isthmus/bench/rig"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

type options struct {
	binary   string
	duration time.Duration
	callers  int
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/isthmus", "the isthmus binary to measure")
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "of each measurement")
	flag.IntVar(&o.callers, "callers", 8, "calls to the control plane at a time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench/signing:", err)
		os.Exit(1)
	}
}

// figures are rates per second of CPU, so that whatever else the machine does matters little.
type figures struct {
	RawPerS     float64 `json:"raw"`
	StdlibPerS  float64 `json:"stdlib"`
	InProcess   float64 `json:"authority"` // the mesh's authority without gRPC, each certificate recorded durably
	ControlPerS float64 `json:"grpc"`      // of the control plane's CPU
	Ratio       float64 `json:"grpc_to_stdlib"`
	WallPerS    float64 `json:"grpc_wall"` // per second as seen by the callers, who share the machine
}

func run(ctx context.Context, o options) error {
	key, csr, err := request()
	if err != nil {
		return err
	}
	var f figures
	if f.RawPerS, err = rate(o, 1, func() error {
		sum := sha256.Sum256(csr)
		_, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		return err
	}); err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	if f.StdlibPerS, err = rate(o, 1, func() error { return certify(csr, key) }); err != nil {
		return fmt.Errorf("certify: %w", err)
	}
	if f.InProcess, err = inProcess(ctx, o, csr); err != nil {
		return fmt.Errorf("certify by the authority: %w", err)
	}
	if f.WallPerS, f.ControlPerS, err = overGRPC(ctx, o, csr); err != nil {
		return err
	}
	f.Ratio = f.ControlPerS / f.StdlibPerS
	return f.print(os.Stdout)
}

// rate is how often f can be done in a second of this process's CPU, by some callers at a time on one core.
func rate(o options, callers int, f func() error) (float64, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	o.callers = callers
	before, err := proc.Read(os.Getpid())
	if err != nil {
		return 0, err
	}
	n, err := repeat(o, f)
	if err != nil {
		return 0, err
	}
	after, err := proc.Read(os.Getpid())
	return float64(n) / (after.CPU - before.CPU).Seconds(), err
}

// request makes a key and a certificate request for it.
func request() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return key, csr, nil
}

// certify is the least that any authority does: read the request, check that its sender has the key, sign.
func certify(csr []byte, issuer *ecdsa.PrivateKey) error {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return err
	}
	if err := req.CheckSignature(); err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour)}
	_, err = x509.CreateCertificate(rand.Reader, template, template, req.PublicKey, issuer)
	return err
}

// inProcess asks the authority itself, from several callers at a time as the control plane's agents do.
func inProcess(ctx context.Context, o options, csr []byte) (float64, error) {
	dir, err := os.MkdirTemp("", "isthmus-bench-")
	if err != nil {
		return 0, fmt.Errorf("make a temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	db, err := state.Open(ctx, filepath.Join(dir, "state.db"))
	if err != nil {
		return 0, err
	}
	defer db.Close()
	td, err := spiffe.ParseTrustDomain(genmesh.TrustDomain)
	if err != nil {
		return 0, err
	}
	id, err := spiffe.Workload(td, "default", "payments")
	if err != nil {
		return 0, err
	}
	authority, err := ca.New(ctx, ca.Config{
		TrustDomain: td, Store: db, KeyFile: filepath.Join(dir, "key"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return 0, err
	}
	return rate(o, o.callers, func() error {
		_, err := authority.Sign(ctx, csr, id, 0, "node")
		return err
	})
}

// repeat does f again and again from several goroutines, and counts.
func repeat(o options, f func() error) (int, error) {
	start, counts := time.Now(), make([]int, o.callers)
	var g errgroup.Group
	for i := range counts {
		g.Go(func() error {
			for time.Since(start) < o.duration {
				if err := f(); err != nil {
					return err
				}
				counts[i]++
			}
			return nil
		})
	}
	err := g.Wait()
	n := 0
	for _, c := range counts {
		n += c
	}
	return n, err
}

// overGRPC asks a real control plane on one core for certificates of one workload.
func overGRPC(ctx context.Context, o options, csr []byte) (perSecond, perCPUSecond float64, err error) {
	mesh, err := genmesh.New(genmesh.Plan{Services: 1, Endpoints: 1, Proxies: 1, Callable: 1})
	if err != nil {
		return 0, 0, err
	}
	dir, err := os.MkdirTemp("", "isthmus-bench-")
	if err != nil {
		return 0, 0, fmt.Errorf("make a temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	configDir := filepath.Join(dir, "config")
	if err := errors.Join(os.Mkdir(configDir, 0o755), mesh.Write(configDir)); err != nil {
		return 0, 0, fmt.Errorf("write the configuration: %w", err)
	}
	control, err := rig.Start(o.binary, dir, configDir, "GOMAXPROCS=1")
	if err != nil {
		return 0, 0, err
	}
	defer control.Stop()
	perSecond, perCPUSecond, err = askForCertificates(ctx, o, control, mesh, csr)
	if err != nil {
		err = fmt.Errorf("%w\nThe control plane's last words:\n%s", err, control.LastWords())
	}
	return perSecond, perCPUSecond, err
}

func askForCertificates(ctx context.Context, o options, control *rig.Control, mesh *genmesh.Mesh, csr []byte) (float64, float64, error) {
	ready, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := control.WaitLoaded(ready, mesh.Objects()); err != nil {
		return 0, 0, err
	}
	cfg, err := rig.Join(ready, control.Admin, control.AgentAddress, 0)
	if err != nil {
		return 0, 0, err
	}
	conn, err := grpc.NewClient(control.AgentAddress, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		return 0, 0, fmt.Errorf("dial %s: %w", control.AgentAddress, err)
	}
	defer conn.Close()
	background, stop := context.WithCancel(ctx)
	defer stop()
	go rig.Converse(background, conn, 0) // without it Sign is refused, which says why
	w := genmesh.Workload(0)
	ask := func() error {
		_, err := agentapi.Client{Conn: conn}.Sign(ctx, &agentapi.SignRequest{Namespace: w.Namespace, ServiceAccount: w.ServiceAccount, CSR: csr})
		return err
	}
	for err = ask(); err != nil; err = ask() { // until the workload is registered
		select {
		case <-ready.Done():
			return 0, 0, fmt.Errorf("ask for a certificate: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return askRepeatedly(o, control, ask)
}

// askRepeatedly asks from several callers at a time and relates the answers to what they cost.
func askRepeatedly(o options, control *rig.Control, ask func() error) (perSecond, perCPUSecond float64, err error) {
	before, err := control.Usage()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	n, err := repeat(o, ask)
	if err != nil {
		return 0, 0, fmt.Errorf("ask for a certificate: %w", err)
	}
	took := time.Since(start)
	after, err := control.Usage()
	if err != nil {
		return 0, 0, err
	}
	return float64(n) / took.Seconds(), float64(n) / (after.CPU - before.CPU).Seconds(), nil
}

// print writes the table for people and the line for programs.
func (f figures) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	mark := "×"
	if f.Ratio >= 0.6 {
		mark = "√"
	}
	fmt.Fprintf(t, "\twhat\taim\tseen\n")
	fmt.Fprintf(t, "\traw P-256 signatures\t\t%.0f per CPU-second\n", f.RawPerS)
	fmt.Fprintf(t, "\trequest → certificate, standard library\t\t%.0f per CPU-second\n", f.StdlibPerS)
	fmt.Fprintf(t, "\trequest → certificate, authority with its durable record\t\t%.0f per CPU-second\n", f.InProcess)
	fmt.Fprintf(t, "\trequest → certificate, control plane over gRPC\t\t%.0f per CPU-second, %.0f/s\n", f.ControlPerS, f.WallPerS)
	fmt.Fprintf(t, "%s\tcontrol plane to standard library\t≥ 60 %%\t%.0f %%\n", mark, 100*f.Ratio)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	out, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("print the figures: %w", err)
	}
	fmt.Fprintf(w, "\n%s\n", out)
	return nil
}
