package envoyproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/durable"
	"isthmus.dev/isthmus/internal/node/cgroup"
	"isthmus.dev/isthmus/internal/retry"
)

// Config of a Supervisor.
type Config struct {
	Log    *slog.Logger
	Binary string
	RunDir string
	// Bootstrap but for its sockets, which are RunDir's.
	Bootstrap   Bootstrap
	Concurrency int
	LogLevel    string
	// Group is the control group that Envoy runs in, by which capture knows its sockets; nil where nothing is captured.
	Group *cgroup.Group
	// FDStore keeps sockets in Envoy for the next agent (Hold). It requires the right to trace Envoy.
	FDStore bool
	// Keep is called when Run ends, with the cause. It reports whether Envoy is to go on without its agent, for the
	// next one to take over.
	Keep func(why error) bool
	// Changed is called when the State did.
	Changed func()
}

// The files of an Envoy in its run directory.
const (
	agentSocket   = "agent.sock"
	adminSocket   = "admin.sock"
	bootstrapFile = "envoy.json"
	logFile       = "envoy.log"
)

// AgentSocket returns where the agent must listen for its Envoy.
func AgentSocket(runDir string) string { return filepath.Join(runDir, agentSocket) }

// steady is how long an Envoy must have run for its death to reset the restart back-off.
const steady = 30 * time.Second

// Supervisor keeps one Envoy alive.
type Supervisor struct {
	cfg   Config
	admin *http.Client
	made  string   // fingerprint of the Envoy wanted
	found *process // an Envoy that an earlier agent left and that is as wanted; nil once Run has it

	mu    sync.Mutex // guards state
	state agentapi.EnvoyState

	holding sync.Mutex // guards what follows
	held    []HeldSocket
	runs    *process // nil while none does
}

// New makes a supervisor; nothing runs yet.
func New(cfg Config) *Supervisor {
	socket := filepath.Join(cfg.RunDir, adminSocket)
	return &Supervisor{cfg: cfg, admin: &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
		},
	}}
}

// State now.
func (s *Supervisor) State() agentapi.EnvoyState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// set changes the state and calls Changed.
func (s *Supervisor) set(change func(*agentapi.EnvoyState)) {
	s.mu.Lock()
	before := s.state
	change(&s.state)
	changed := before != s.state
	s.mu.Unlock()
	if changed {
		s.cfg.Changed()
	}
}

// Hold keeps exactly these sockets open for as long as Envoy runs, whatever becomes of this process. An Envoy started
// later holds them too. The files must stay open until the next Hold.
func (s *Supervisor) Hold(held []HeldSocket) error {
	s.holding.Lock()
	defer s.holding.Unlock()
	s.held = held
	if s.runs == nil || s.runs.fds == nil {
		return nil
	}
	return s.runs.fds.replace(held)
}

// attach makes p the running Envoy and stores the held sockets in it.
func (s *Supervisor) attach(p *process) error {
	s.holding.Lock()
	defer s.holding.Unlock()
	s.runs = p
	if p.fds == nil {
		return nil
	}
	return p.fds.replace(s.held)
}

func (s *Supervisor) detach(p *process) error {
	s.holding.Lock()
	defer s.holding.Unlock()
	s.runs = nil
	return p.close()
}

// Prepare writes the bootstrap, asks the binary for its version, and looks for an Envoy that an earlier agent left. It
// takes over one with the same program, arguments and bootstrap, and ends any other.
func (s *Supervisor) Prepare(ctx context.Context) error {
	version, err := VersionOf(ctx, s.cfg.Binary)
	if err != nil {
		return err
	}
	if version != Version {
		s.cfg.Log.Warn("this Envoy is of another version than Isthmus is made for", "version", version, "want", Version)
	}
	s.set(func(st *agentapi.EnvoyState) { st.Version = version })
	text, err := s.bootstrap().JSON()
	if err != nil {
		return err
	}
	if s.made, err = fingerprint(s.cfg, text); err != nil {
		return err
	}
	if err := s.adoptEarlier(); err != nil {
		return err
	}
	path := filepath.Join(s.cfg.RunDir, bootstrapFile)
	if err := durable.WriteFile(path, text); err != nil {
		return fmt.Errorf("write Envoy bootstrap: %w", err)
	}
	return nil
}

func (s *Supervisor) bootstrap() Bootstrap {
	b := s.cfg.Bootstrap
	b.AgentSocket = AgentSocket(s.cfg.RunDir)
	b.AdminSocket = filepath.Join(s.cfg.RunDir, adminSocket)
	return b
}

// adoptEarlier takes over or ends the Envoy that an earlier agent left.
func (s *Supervisor) adoptEarlier() error {
	p, r, err := find(s.cfg.RunDir)
	switch {
	case err == nil && r.made == s.made:
		if s.cfg.FDStore {
			if p.fds, err = fdStoreOf(p); err != nil {
				return errors.Join(err, p.close())
			}
		}
		s.found = p
		return nil
	case err == nil:
		s.cfg.Log.Warn("the running Envoy has another binary or bootstrap, replacing it: its connections are closed",
			"pid", r.pid)
		if err := p.close(); err != nil {
			return err
		}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	return End(s.cfg.RunDir)
}

// Run keeps Envoy running until ctx ends, then ends it, unless it is to be kept.
func (s *Supervisor) Run(ctx context.Context) error {
	wait := retry.Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second}
	for {
		began := time.Now()
		err := s.runOnce(ctx)
		if ctx.Err() != nil {
			s.set(func(st *agentapi.EnvoyState) { st.Running = false })
			return ctx.Err()
		}
		s.set(func(st *agentapi.EnvoyState) {
			st.Running = false
			if errors.Is(err, errCrash) {
				st.Crashes, st.LastCrash = st.Crashes+1, err.Error()
			}
		})
		if time.Since(began) > steady {
			wait.Reset()
		}
		pause := wait.Next()
		s.cfg.Log.Error("Envoy ended, starting it again",
			"error", err, "in", pause.String(), "log", filepath.Join(s.cfg.RunDir, logFile))
		if err := retry.Sleep(ctx, pause); err != nil {
			return err
		}
		s.set(func(st *agentapi.EnvoyState) { st.Restarts++ })
	}
}

// acquire returns the Envoy that was found, or starts one.
func (s *Supervisor) acquire() (*process, error) {
	if p := s.found; p != nil {
		s.found = nil
		s.cfg.Log.Info("Envoy taken over from an earlier agent", "pid", p.pid)
		return p, nil
	}
	p, err := start(s.cfg, s.made)
	if err == nil {
		s.cfg.Log.Info("Envoy started", "pid", p.pid)
	}
	return p, err
}

// runOnce runs one Envoy to its end.
func (s *Supervisor) runOnce(ctx context.Context) error {
	found := s.found != nil
	p, err := s.acquire()
	if err != nil {
		return err
	}
	var seen uint64
	if found {
		seen = s.countRefused(ctx, 0, false)
		if err := s.post(ctx, "/healthcheck/ok"); err != nil { // its agent may have been killed while it drained
			s.cfg.Log.Warn("the Envoy that was taken over may ask its clients to leave", "error", err)
		}
	}
	if err := s.attach(p); err != nil {
		s.cfg.Log.Error("sockets not kept for the next agent: DNS will not answer once this one ends", "error", err)
	}
	s.set(func(st *agentapi.EnvoyState) { st.Running = true })
	ended := make(chan error, 1)
	go func() { ended <- p.wait(0) }()
	size := time.NewTicker(time.Minute)
	defer size.Stop()
	room := time.NewTicker(10 * time.Second)
	defer room.Stop()
	for {
		select {
		case <-room.C:
			seen = s.countRefused(ctx, seen, true)
		case err := <-ended:
			if err == nil {
				err = p.how()
			}
			return errors.Join(err, s.detach(p))
		case <-size.C:
			if err := truncateLog(filepath.Join(s.cfg.RunDir, logFile)); err != nil {
				s.cfg.Log.Error("Envoy's log not shortened", "error", err)
			}
		case <-ctx.Done():
			return errors.Join(ctx.Err(), s.part(p, context.Cause(ctx)))
		}
	}
}

// countRefused returns how many connections Envoy has refused, and adds those beyond seen to the state if note is set.
func (s *Supervisor) countRefused(ctx context.Context, seen uint64, note bool) uint64 {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	n, err := s.Refused(ctx)
	if err != nil {
		s.cfg.Log.Debug("refused connections not counted", "error", err)
		return seen
	}
	if note && n > seen {
		s.set(func(st *agentapi.EnvoyState) { st.Refused, st.RefusedLast = st.Refused+n-seen, time.Now() })
	}
	return n
}

// part leaves Envoy to the next agent or ends it.
func (s *Supervisor) part(p *process, why error) error {
	if s.cfg.Keep(why) {
		s.cfg.Log.Info("Envoy keeps running without its agent", "pid", p.pid)
		return s.detach(p)
	}
	return errors.Join(p.stop(), s.detach(p))
}

// Ready asks Envoy whether it has its configuration and serves.
func (s *Supervisor) Ready(ctx context.Context) error {
	resp, err := s.get(ctx, "/ready")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 100))
		return errors.Join(errors.New("Envoy is "+string(text)), err)
	}
	return nil
}

// Drain makes Envoy ask every client, with each answer, to close its connection (Connection: close, GOAWAY), and fail
// health checks. Envoy goes on serving.
func (s *Supervisor) Drain(ctx context.Context) error { return s.post(ctx, "/healthcheck/fail") }

func (s *Supervisor) post(ctx context.Context, path string) error {
	resp, err := s.do(ctx, http.MethodPost, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask Envoy for %s: %s", path, resp.Status)
	}
	return nil
}

func (s *Supervisor) get(ctx context.Context, path string) (*http.Response, error) {
	return s.do(ctx, http.MethodGet, path)
}

func (s *Supervisor) do(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.admin.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask Envoy: %w", err)
	}
	return resp, nil
}

func arguments(cfg Config) []string {
	return []string{
		"--config-path", filepath.Join(cfg.RunDir, bootstrapFile),
		"--concurrency", strconv.Itoa(cfg.Concurrency),
		"--drain-time-s", "2", "--drain-strategy", "immediate",
		// Hot restart would open an abstract socket that any local user can reach; the agent never uses it.
		"--disable-hot-restart",
		"--log-level", cfg.LogLevel,
		"--log-path", filepath.Join(cfg.RunDir, logFile),
	}
}
