package envoyproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Held are sockets that outlive the agent under a name. Their files stay the owner's to close.
type Held struct {
	Name  string // at most maxName bytes
	Files []*os.File
}

const (
	shelfFD    = 3 // the shelf's first end in Envoy, the second follows: exec.Cmd.ExtraFiles
	maxName    = 1024
	maxFiles   = 16 // in one Held
	shelfBytes = 8 << 20
)

// shelf is where an agent leaves sockets for the next one: as messages that nobody reads, in the queue of a socket pair
// (SCM_RIGHTS, unix(7)). Envoy inherits both ends and knows nothing of them; while it lives, what lies in the queue is
// open.
type shelf struct{ in, out *os.File }

func newShelf() (*shelf, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	// The usual limit is enough for some hundred workloads; without CAP_NET_ADMIN it stays.
	_ = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, shelfBytes)
	return &shelf{in: os.NewFile(uintptr(fds[0]), "shelf"), out: os.NewFile(uintptr(fds[1]), "shelf")}, nil
}

// inherited is what Envoy is started with, from shelfFD on.
func (s *shelf) inherited() []*os.File { return []*os.File{s.in, s.out} }

// shelfOf is the shelf in a running Envoy; it needs the right to trace it (pidfd_getfd(2)).
func shelfOf(p *process) (*shelf, error) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return nil, err
	}
	var ends [2]*os.File
	for i := range ends {
		var fd int
		var taking error
		take := func(pidfd uintptr) { fd, taking = unix.PidfdGetfd(int(pidfd), shelfFD+i, 0) }
		if err := errors.Join(raw.Control(take), taking); err != nil {
			return nil, fmt.Errorf("reach into the Envoy that runs (needs CAP_SYS_PTRACE): %w", err)
		}
		ends[i] = os.NewFile(uintptr(fd), "shelf")
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil ||
			kind != unix.SOCK_SEQPACKET {
			return nil, errors.New("the Envoy that runs holds no sockets for an agent")
		}
	}
	return &shelf{in: ends[0], out: ends[1]}, nil
}

func (s *shelf) close() error { return errors.Join(s.in.Close(), s.out.Close()) }

// replace leaves these and no others. What is new comes first: an agent that dies half-way leaves too much, never too
// little.
func (s *shelf) replace(held []Held) error {
	generation := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
	for _, h := range held {
		if err := s.put(generation, h); err != nil {
			return fmt.Errorf("keep sockets of %s for the next agent: %w", h.Name, err)
		}
	}
	for {
		head := make([]byte, len(generation))
		n, _, _, _, err := unix.Recvmsg(int(s.out.Fd()), head, nil, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) || err == nil && (n == 0 || string(head[:n]) == string(generation)) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at the sockets kept: %w", err)
		}
		if _, err := s.out.Read(head); err != nil { // what it carried is closed with it
			return fmt.Errorf("forget sockets kept: %w", err)
		}
	}
}

func (s *shelf) put(generation []byte, h Held) error {
	var fds []int
	for _, f := range h.Files {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
			return err
		}
	}
	return unix.Sendmsg(int(s.in.Fd()), append(generation[:len(generation):len(generation)], h.Name...),
		unix.UnixRights(fds...), nil,
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// take everything from the shelf; of two of one name the later.
func (s *shelf) take() ([]Held, error) {
	var all []Held
	place := map[string]int{}
	for {
		h, err := s.next()
		if err != nil || h == nil {
			return all, err
		}
		if i, ok := place[h.Name]; ok {
			Release(all[i].Files)
			all[i] = *h
			continue
		}
		place[h.Name] = len(all)
		all = append(all, *h)
	}
}

// next is the oldest on the shelf; nil when there is none.
func (s *shelf) next() (*Held, error) {
	text, rights := make([]byte, 8+maxName), make([]byte, unix.CmsgSpace(4*maxFiles))
	n, rn, _, _, err := unix.Recvmsg(int(s.out.Fd()), text, rights, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if errors.Is(err, unix.EAGAIN) || err == nil && n < 8 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("take sockets kept: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		return nil, fmt.Errorf("take sockets kept: %w", err)
	}
	h := &Held{Name: string(text[8:n])}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, fmt.Errorf("take sockets kept: %w", err)
		}
		for _, fd := range fds {
			h.Files = append(h.Files, os.NewFile(uintptr(fd), h.Name))
		}
	}
	return h, nil
}

// Release closes files that were kept.
func Release(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Kept are the sockets that an earlier agent left in the Envoy of a run directory, if one runs; they stay with that
// Envoy too. An Envoy that does not give them, or that is not the one written down, is ended, since it would keep their
// ports.
func Kept(runDir string) (held []Held, err error) {
	p, _, err := find(runDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, End(runDir)
	}
	if err != nil {
		return nil, err
	}
	defer p.close()
	s, err := shelfOf(p)
	if err != nil {
		return nil, errors.Join(err, End(runDir))
	}
	defer s.close()
	if held, err = s.take(); err == nil {
		err = s.replace(held)
	}
	if err != nil {
		for _, h := range held {
			Release(h.Files)
		}
		return nil, errors.Join(err, End(runDir))
	}
	return held, nil
}
