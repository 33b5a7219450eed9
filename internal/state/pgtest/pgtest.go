// Package pgtest starts a real PostgreSQL for tests, in its own folder, on a Unix socket only, as an unprivileged user.
// When a test process ends for any reason, its servers and folders are removed.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"isthmus.dev/isthmus/internal/state/postgres"
)

// patience limits how long a server may take for an operation.
const patience = 60 * time.Second

// janitor waits until its parent has ended, then kills the server of a folder and removes the folder.
const janitor = `cat >/dev/null
file=$1/data/postmaster.pid
pid=$(head -n 1 "$file" 2>/dev/null) && kill -QUIT "$pid" && for i in $(seq 100); do
	[ -e "$file" ] || break
	sleep 0.1
done
rm -rf "$1"`

// user and password of the test databases.
const (
	owner    = "isthmus"
	password = "it's \\ a secret"
)

// Server is one PostgreSQL server.
type Server struct {
	bin, dir  string
	attr      *syscall.SysProcAttr // how its programs are run
	host      string               // TLS address; empty: none
	databases atomic.Int64
}

// shared is the server for all tests of a process that do not need their own.
var shared = sync.OnceValues(start)

// Shared returns a server for tests that do not harm it.
func Shared(t testing.TB) *Server {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Start returns a server that a test may harm.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func start() (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "isthmus-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, attr: &syscall.SysProcAttr{Setsid: true}}
	if err := s.own(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := s.watch(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := errors.Join(s.init(), s.Launch()); err != nil {
		return nil, err
	}
	return s, s.createOwner()
}

// programs finds the folder of PostgreSQL's programs: Debian's newest, or the one in PATH.
func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	slices.SortFunc(found, func(a, b string) int { return version(b) - version(a) })
	if len(found) > 0 {
		return filepath.Dir(found[0]), nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", errors.New("these tests need PostgreSQL: run 'apt-get install postgresql'")
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}

func version(path string) int {
	n, _ := strconv.Atoi(strings.Split(path, "/")[4])
	return n
}

// own gives the folder to an unprivileged user: PostgreSQL refuses to run as root.
func (s *Server) own() error {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return err
		}
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	s.attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return errors.Join(err1, err2, os.Chown(s.dir, uid, gid))
}

// watch starts a process that cleans up when this one ends.
func (s *Server) watch() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("sh", "-c", janitor, "janitor", s.dir)
	cmd.Stdin, cmd.SysProcAttr = r, &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	held.Lock()
	defer held.Unlock()
	held.pipes = append(held.pipes, w)
	return nil
}

// held keeps pipes open that tell the watching processes that this one is alive.
var held struct {
	sync.Mutex
	pipes []*os.File
}

func (s *Server) init() error {
	secret := filepath.Join(s.dir, "superuser")
	if err := os.WriteFile(secret, []byte(password), 0o644); err != nil { // in a folder that only the server can read
		return err
	}
	return s.run("initdb", "-D", s.data(), "-U", "postgres", "--pwfile", secret, "--auth-local=scram-sha-256",
		"--auth-host=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync")
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) run(program string, args ...string) error {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir, cmd.SysProcAttr, cmd.Env = s.dir, s.attr, []string{"PATH=/usr/bin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// ServeTLS makes a killed server also listen on a loopback address with TLS, when it is launched again. The certificate
// and key are PEM.
func (s *Server) ServeTLS(host string, cert, key []byte) error {
	for name, text := range map[string][]byte{"server.crt": cert, "server.key": key} {
		path := filepath.Join(s.data(), name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
		if c := s.attr.Credential; c != nil {
			if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
				return err
			}
		}
	}
	s.host = host
	return nil
}

// Launch starts the server, initially or after it was killed, and returns when it accepts queries.
func (s *Server) Launch() error {
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := s.launch()
		if err == nil || time.Since(begun) > patience { // the remains of a killed server may be in the way
			return err
		}
	}
}

func (s *Server) launch() error {
	path := filepath.Join(s.dir, "log")
	log, err := os.Create(path)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-k", s.dir, "-h", s.host, "-c", "fsync=off",
		"-c", "ssl="+strconv.FormatBool(s.host != ""),
		"-c", "full_page_writes=off", "-c", "shared_buffers=32MB", "-c", "max_connections=200", "-c", "autovacuum=off",
		"-c", "dynamic_shared_memory_type=mmap") // in its folder, so that a killed one leaves nothing in /dev/shm
	cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr, cmd.Env = s.dir, s.attr, log, log, []string{"PATH=/usr/bin:/bin"}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		conn, err := s.connect(context.Background(), "postgres")
		if err == nil {
			return conn.Close(context.Background())
		}
		select {
		case <-ended:
		default:
			if time.Since(begun) < patience {
				continue
			}
		}
		said, _ := os.ReadFile(path)
		return fmt.Errorf("PostgreSQL does not start: %w\n%s", err, said)
	}
}

// Kill kills the server like a crash.
func (s *Server) Kill() error {
	b, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		return err
	}
	pid, _, _ := strings.Cut(string(b), "\n")
	children, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
	if err != nil {
		return err
	}
	for _, p := range append([]string{pid}, strings.Fields(string(children))...) {
		if n, err := strconv.Atoi(p); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL) // it may have ended already
		}
	}
	return nil
}

// Admin runs a statement as the superuser.
func (s *Server) Admin(t testing.TB, database, statement string, args ...any) {
	t.Helper()
	conn, err := s.connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// createOwner creates the unprivileged owner of the databases.
func (s *Server) createOwner() error {
	ctx := context.Background()
	conn, err := s.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "CREATE ROLE "+owner+" LOGIN PASSWORD '"+strings.ReplaceAll(password, "'", "''")+"'")
	return err
}

// Connect returns a superuser connection, which is closed at the end of the test.
func (s *Server) Connect(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	conn, err := s.connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (s *Server) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig("user=postgres dbname=" + database + " host=" + s.dir +
		" port=5432 sslmode=disable passfile=/dev/null")
	if err != nil {
		return nil, err
	}
	cfg.Password = password
	return pgx.ConnectConfig(ctx, cfg)
}

// Database creates an empty database with an unprivileged owner.
func (s *Server) Database(t testing.TB) postgres.Config {
	t.Helper()
	name := fmt.Sprintf("mesh%d", s.databases.Add(1))
	s.Admin(t, "postgres", "CREATE DATABASE "+name+" OWNER isthmus")
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return postgres.Config{Addresses: []string{s.dir}, Database: name, User: owner, PasswordFile: secret}
}

// Dir returns the server's folder, with its socket and, in data, its files.
func (s *Server) Dir() string { return s.dir }
