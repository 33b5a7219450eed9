package dns

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// maxQuestion is the size of the longest UDP message that is read, in bytes (RFC 1035 section 2.3.4).
const maxQuestion = dns.MinMsgSize

// udpServer answers the questions that arrive at one UDP socket, in order. A question stays in the kernel's queue until
// its answer is sent. If the agent is killed before that, the next one takes over the socket and finds the question
// there. A resolver would repeat it only after 5 seconds, longer than many callers wait.
//
// A socket has one reader at a time: a second one would answer the same questions and drop others unanswered.
type udpServer struct {
	server *Server
	client client
	conn   *net.UDPConn
}

// queueBytes is the kernel memory that questions may wait in, some 2700 of them.
const queueBytes = 2 << 20

// makeRoom for what is asked while no agent runs. Without CAP_NET_ADMIN there is room for the usual, some 270
// questions.
func (u *udpServer) makeRoom() error {
	socket, err := u.conn.SyscallConn()
	if err != nil {
		return err
	}
	return socket.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queueBytes/2) // which the kernel doubles
	})
}

// run answers until the socket is closed, and then waits for the forwarded questions.
func (u *udpServer) run() error {
	var forwards sync.WaitGroup
	defer forwards.Wait()
	forward := func(slot int, m message) { forwards.Go(func() { u.forward(slot, m) }) }
	for slot, m := range u.client.pending.inherited {
		if m.from.Addr().Is4() == u.address().Addr().Is4() {
			forward(slot, m)
		}
	}
	socket, err := u.conn.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, maxQuestion)
	for {
		m, err := peek(socket, buf)
		if err == nil {
			u.handle(m, forward)
			err = drop(socket)
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// handle answers a message, or leaves it to forward.
func (u *udpServer) handle(m message, forward func(slot int, m message)) {
	answer, elsewhere := u.answer(m.text, u.server.answerNow)
	if elsewhere {
		if slot, ok := u.client.admit(); ok {
			m = m.clone()
			if err := u.client.pending.write(slot, m); err != nil {
				u.server.cfg.Log.Warn("dns question not kept for the next agent", "workload", u.client.workload,
					"error", err)
			}
			forward(slot, m)
			return
		}
		answer, _ = u.answer(m.text, u.server.notForwarded)
	}
	_ = u.send(answer, m.from) // that it is not sent is logged, and asked again
}

// forward asks upstream. A question stays for the next agent if its answer cannot be sent because this agent ends.
func (u *udpServer) forward(slot int, m message) {
	answer, _ := u.answer(m.text, func(c client, q *dns.Msg) *dns.Msg { return u.server.askUpstreams(c, q, false) })
	if err := u.send(answer, m.from); errors.Is(err, net.ErrClosed) {
		return
	}
	u.client.pending.release(slot)
}

// answer packs the answer that resolve finds to a message. It is empty for what is no question, and where resolve has
// none.
//
// A message that makes the agent panic is removed unanswered: left in the queue it would end every later agent.
func (u *udpServer) answer(m []byte, resolve func(client, *dns.Msg) *dns.Msg) (answer []byte, elsewhere bool) {
	log := u.server.cfg.Log.With(slog.String("workload", u.client.workload))
	defer func() {
		if fault := recover(); fault != nil {
			log.Error("dns question dropped, answering it failed", "fault", fault, "stack", string(debug.Stack()))
			answer, elsewhere = nil, false
		}
	}()
	q := parse(m)
	if q == nil {
		return nil, false
	}
	r := resolve(u.client, q)
	if r == nil {
		return nil, true
	}
	r.Truncate(udpSize(q))
	answer, err := r.Pack()
	if err != nil {
		log.Debug("dns answer not packed", "error", err)
	}
	return answer, false
}

// parse parses a message. It returns nil if that is not a question. Of an unreadable message only the header is kept.
func parse(m []byte) *dns.Msg {
	if len(m) < headerSize {
		return nil
	}
	q := new(dns.Msg)
	if err := q.Unpack(m); err != nil {
		q = &dns.Msg{MsgHdr: q.MsgHdr}
	}
	if q.Response {
		return nil
	}
	return q
}

// headerSize of a message in bytes.
const headerSize = 12

func (u *udpServer) send(answer []byte, to netip.AddrPort) error {
	if len(answer) == 0 {
		return nil
	}
	_, err := u.conn.WriteToUDPAddrPort(answer, to)
	if err != nil {
		u.server.cfg.Log.Debug("dns answer not sent", "workload", u.client.workload, "error", err)
	}
	return err
}

func (u *udpServer) address() netip.AddrPort { return u.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// message is one that arrived over UDP.
type message struct {
	from netip.AddrPort
	text []byte
}

// clone returns a message with memory of its own.
func (m message) clone() message { return message{m.from, slices.Clone(m.text)} }

// peek waits for a message and leaves it at the head of the queue. The text is in buf, cut to its length.
func peek(socket syscall.RawConn, buf []byte) (m message, err error) {
	n, from, err := receive(socket, buf, unix.MSG_PEEK)
	if err != nil {
		return message{}, err
	}
	m.text = buf[:n]
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		m.from = netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port))
	case *unix.SockaddrInet6:
		m.from = netip.AddrPortFrom(netip.AddrFrom16(from.Addr), uint16(from.Port))
	}
	return m, nil
}

// drop removes the message at the head of the queue.
func drop(socket syscall.RawConn) error {
	_, _, err := receive(socket, nil, 0)
	return err
}

func receive(socket syscall.RawConn, buf []byte, flags int) (n int, from unix.Sockaddr, err error) {
	closed := socket.Read(func(fd uintptr) (done bool) {
		for {
			n, from, err = unix.Recvfrom(int(fd), buf, flags|unix.MSG_DONTWAIT)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if closed != nil {
		return 0, nil, closed
	}
	return n, from, err
}
