package dns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/wellknown"
)

const (
	maxConnections = 64 // TCP, per workload

	// Ports tried in place of the usual one: below those that connections get.
	portsTried          = 32
	firstPort, lastPort = 20000, 29999
)

// Config of a Server.
type Config struct {
	Log *slog.Logger
	// Upstreams that answer for names outside the mesh where the mesh lets workloads call unlisted addresses, in order
	// of preference. None: such names do not exist.
	Upstreams []netip.AddrPort
	// Record is called for questions about names outside the mesh: for each one that was forwarded and for some of the
	// others.
	Record func(ExternalQuestion)
}

// Listener is one workload whose questions are answered.
type Listener struct {
	Workload string // "<namespace>/<name>", the key into Instructions.DNS
	Netns    string // path
	// Inherited are the files of this workload in this namespace that outlived an earlier server; they are taken over,
	// with the questions that wait in them. Listen does not close them.
	Inherited []*os.File
}

// Server answers for many workloads, each in its own network namespace.
type Server struct {
	cfg    Config
	tables atomic.Pointer[map[string]agentapi.DNSTable]
	counts counts
}

// Counts of answers since the server began.
type Counts struct{ Mesh, Forwarded, Failed, Refused uint64 }

type counts struct{ mesh, forwarded, failed, refused atomic.Uint64 }

// New makes a server; Listen opens its sockets.
func New(cfg Config) *Server {
	return &Server{cfg: cfg}
}

// SetTables replaces what workloads may resolve; the map must not be written afterwards.
func (s *Server) SetTables(tables map[string]agentapi.DNSTable) { s.tables.Store(&tables) }

// Counts so far.
func (s *Server) Counts() Counts {
	return Counts{
		Mesh: s.counts.mesh.Load(), Forwarded: s.counts.forwarded.Load(),
		Failed: s.counts.failed.Load(), Refused: s.counts.refused.Load(),
	}
}

// Sockets are where one workload's questions arrive.
type Sockets struct {
	Port     uint16 // on the loopback
	workload string
	udp      []*udpServer
	tcp      []*dns.Server
	files    []*os.File // see Files
}

// Files returns the sockets, and what is unanswered, as they can be kept for a later server; they are open until Close.
func (s *Sockets) Files() []*os.File { return s.files }

// Listen opens the sockets of one workload, in both IP versions where the namespace has them.
func (s *Server) Listen(l Listener) (*Sockets, error) {
	socks := &Sockets{workload: l.Workload}
	kept, err := takeOver(l.Inherited)
	var p *pending
	if err == nil {
		p, err = keptPending(kept)
	}
	if err == nil {
		c := newClient(l.Workload, p)
		err = netns.Do(l.Netns, func() error { return s.listen(socks, c, kept) })
		socks.files = append(socks.files, p.file)
	}
	for _, unwanted := range kept {
		unwanted.Close()
	}
	if err != nil {
		socks.Close()
		return nil, fmt.Errorf("serve DNS for workload %s in network namespace %q: %w", l.Workload, l.Netns, err)
	}
	return socks, nil
}

// listen opens the sockets at the usual port, or at that of the inherited sockets. If a program of the workload has
// taken the port, any other will do, since capture redirects questions there.
func (s *Server) listen(socks *Sockets, c client, kept map[string]io.Closer) error {
	port := keptPort(kept)
	for range portsTried {
		err := s.listenOn(socks, c, kept, port)
		if !errors.Is(err, unix.EADDRINUSE) {
			socks.Port = port
			return err
		}
		socks.Close()
		*socks = Sockets{workload: socks.workload}
		port = firstPort + uint16(rand.N(lastPort-firstPort+1))
	}
	return fmt.Errorf("port %d and %d others on the loopback are in use: end the program that holds them",
		wellknown.DNSPort, portsTried-1)
}

// keptPort returns that of the sockets kept, or the usual one.
func keptPort(kept map[string]io.Closer) uint16 {
	for name := range kept {
		if ap, err := netip.ParseAddrPort(name[strings.Index(name, " ")+1:]); err == nil {
			return ap.Port()
		}
	}
	return wellknown.DNSPort
}

func (s *Server) listenOn(socks *Sockets, c client, kept map[string]io.Closer, port uint16) error {
	for _, host := range []string{"127.0.0.1", "::1"} {
		err := s.listenAt(socks, c, kept, net.JoinHostPort(host, strconv.Itoa(int(port))))
		if host == "::1" && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
			return nil // no IPv6 in this namespace
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) listenAt(socks *Sockets, c client, kept map[string]io.Closer, addr string) error {
	udp, err := inheritedOr(kept, "udp", addr, net.ListenPacket)
	if err != nil {
		return err
	}
	tcp, err := inheritedOr(kept, "tcp", addr, net.Listen)
	if err != nil {
		return errors.Join(err, udp.Close())
	}
	u := &udpServer{server: s, client: c, conn: udp.(*net.UDPConn)}
	if err := u.makeRoom(); err != nil {
		return errors.Join(err, udp.Close(), tcp.Close())
	}
	socks.udp = append(socks.udp, u)
	socks.tcp = append(socks.tcp, &dns.Server{
		Listener:      netutil.LimitListener(tcp, maxConnections),
		Handler:       dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.serveTCP(c, w, q) }),
		MsgAcceptFunc: acceptAll, ReadTimeout: 5 * time.Second, MaxTCPQueries: 128,
	})
	for _, socket := range []interface{ File() (*os.File, error) }{udp.(*net.UDPConn), tcp.(*net.TCPListener)} {
		f, err := socket.File()
		if err != nil {
			return err
		}
		socks.files = append(socks.files, f)
	}
	return nil
}

// inheritedOr returns the inherited socket, or opens one.
func inheritedOr[S io.Closer](
	kept map[string]io.Closer, network, addr string, open func(network, addr string) (S, error),
) (S, error) {
	if s, ok := kept[network+" "+addr].(S); ok {
		delete(kept, network+" "+addr)
		return s, nil
	}
	return open(network, addr)
}

// pendingFile is the key of the file of pending among what was kept.
const pendingFile = "pending"

// takeOver makes sockets of files, by network and address; the file of pending stays one.
func takeOver(files []*os.File) (map[string]io.Closer, error) {
	kept := map[string]io.Closer{}
	for _, f := range files {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			if kept[pendingFile], err = duplicate(f); err != nil {
				return kept, fmt.Errorf("take over pending questions: %w", err)
			}
			continue
		}
		if l, err := net.FileListener(f); err == nil {
			kept[l.Addr().Network()+" "+l.Addr().String()] = l
			continue
		}
		p, err := net.FilePacketConn(f)
		if err != nil {
			return kept, fmt.Errorf("take over a socket: %w", err)
		}
		kept[p.LocalAddr().Network()+" "+p.LocalAddr().String()] = p
	}
	return kept, nil
}

func keptPending(kept map[string]io.Closer) (*pending, error) {
	f, _ := kept[pendingFile].(*os.File)
	delete(kept, pendingFile)
	return newPending(f)
}

func duplicate(f *os.File) (dup *os.File, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	failed := raw.Control(func(fd uintptr) {
		var n int
		if n, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			dup = os.NewFile(uintptr(n), f.Name())
		}
	})
	return dup, errors.Join(failed, err)
}

// acceptAll accepts every question, so that answer can report what is wrong with it. Answers and messages without a
// header are dropped.
func acceptAll(h dns.Header) dns.MsgAcceptAction {
	if h.Bits&(1<<15) != 0 {
		return dns.MsgIgnore
	}
	return dns.MsgAccept
}

// Run answers questions until ctx is done, and then closes the sockets.
func (s *Sockets) Run(ctx context.Context) error {
	g, group := errgroup.WithContext(ctx)
	for _, u := range s.udp {
		g.Go(u.run)
	}
	for _, srv := range s.tcp {
		g.Go(srv.ActivateAndServe)
	}
	g.Go(func() error {
		<-group.Done()
		s.Close()
		return nil
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve DNS for workload %s: %w", s.workload, err)
	}
	return nil
}

// Close every socket, also of servers that do not serve yet, which their own Shutdown refuses.
func (s *Sockets) Close() {
	for _, u := range s.udp {
		u.conn.Close()
	}
	for _, srv := range s.tcp {
		srv.Listener.Close()
	}
	for _, f := range s.files {
		f.Close()
	}
}

func (s *Server) serveTCP(c client, w dns.ResponseWriter, q *dns.Msg) {
	if err := w.WriteMsg(s.resolve(c, q, true)); err != nil {
		s.cfg.Log.Debug("dns answer not sent", "workload", c.workload, "error", err)
	}
}

func udpSize(q *dns.Msg) int {
	if opt := q.IsEdns0(); opt != nil {
		return max(dns.MinMsgSize, int(opt.UDPSize()))
	}
	return dns.MinMsgSize
}

func (s *Server) resolve(c client, q *dns.Msg, tcp bool) *dns.Msg {
	if r := s.answerNow(c, q); r != nil {
		return r
	}
	return s.forward(c, q, tcp)
}

// answerNow answers a question that may not be asked upstream; nil for one that may.
func (s *Server) answerNow(c client, q *dns.Msg) *dns.Msg {
	namespace, _, _ := strings.Cut(c.workload, "/")
	r, verdict := answer(s.table(c.workload), namespace, q)
	if verdict == forward && len(s.cfg.Upstreams) == 0 {
		r, verdict = negative(q, dns.RcodeNameError), refused
	}
	switch verdict {
	case answered:
		s.counts.mesh.Add(1)
		return r
	case refused:
		s.counts.refused.Add(1)
		s.record(c.refusals, c, q, "refused")
		return r
	}
	return nil
}

// table returns a workload's table; nil before the control plane has sent any. A workload that it does not know yet
// resolves nothing.
func (s *Server) table(workload string) *agentapi.DNSTable {
	tables := s.tables.Load()
	if tables == nil {
		return nil
	}
	t, ok := (*tables)[workload]
	if !ok {
		return nil
	}
	return &t
}
