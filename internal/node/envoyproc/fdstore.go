package envoyproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// HeldSocket is a named set of sockets that outlive the agent. Its owner closes the files.
type HeldSocket struct {
	Name  string // at most maxName bytes
	Files []*os.File
}

const (
	fdStoreFD  = 3 // the store's first end in Envoy (exec.Cmd.ExtraFiles); the second follows
	maxName    = 1024
	maxFiles   = 16 // in one HeldSocket
	storeBytes = 8 << 20
)

// fdStore passes sockets from one agent to the next, as unread messages in the queue of a socket pair (SCM_RIGHTS,
// unix(7)). Envoy inherits both ends without knowing it. The sockets in the queue stay open while Envoy lives.
type fdStore struct{ in, out *os.File }

func newFDStore() (*fdStore, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	// The usual limit is enough for some hundred workloads; without CAP_NET_ADMIN it stays.
	_ = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, storeBytes)
	return &fdStore{in: os.NewFile(uintptr(fds[0]), "fdstore"), out: os.NewFile(uintptr(fds[1]), "fdstore")}, nil
}

// extraFiles returns the files that Envoy inherits, from fdStoreFD on.
func (s *fdStore) extraFiles() []*os.File { return []*os.File{s.in, s.out} }

// fdStoreOf opens the store in a running Envoy. It needs the right to trace Envoy (pidfd_getfd(2)).
func fdStoreOf(p *process) (*fdStore, error) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return nil, err
	}
	var ends [2]*os.File
	for i := range ends {
		var fd int
		var taking error
		take := func(pidfd uintptr) { fd, taking = unix.PidfdGetfd(int(pidfd), fdStoreFD+i, 0) }
		if err := errors.Join(raw.Control(take), taking); err != nil {
			return nil, fmt.Errorf("reach into the Envoy that runs (needs CAP_SYS_PTRACE): %w", err)
		}
		ends[i] = os.NewFile(uintptr(fd), "fdstore")
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil ||
			kind != unix.SOCK_SEQPACKET {
			return nil, errors.New("the Envoy that runs holds no sockets for an agent")
		}
	}
	return &fdStore{in: ends[0], out: ends[1]}, nil
}

func (s *fdStore) close() error { return errors.Join(s.in.Close(), s.out.Close()) }

// replace makes held the whole content of the store. It adds before it removes, so that an agent that dies half-way
// leaves too many sockets rather than too few.
func (s *fdStore) replace(held []HeldSocket) error {
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

func (s *fdStore) put(generation []byte, h HeldSocket) error {
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

// take removes and returns everything in the store. Of two entries with one name, the later counts.
func (s *fdStore) take() ([]HeldSocket, error) {
	var all []HeldSocket
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

// next removes and returns the oldest entry; nil when there is none.
func (s *fdStore) next() (*HeldSocket, error) {
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
	h := &HeldSocket{Name: string(text[8:n])}
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

// Release closes the files of a HeldSocket.
func Release(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// HeldSockets returns the sockets that an earlier agent left in the Envoy of a run directory, if one runs. Envoy goes
// on holding them too. An Envoy that does not hand them over, or is not the recorded one, is ended, since it would
// occupy their ports.
func HeldSockets(runDir string) (held []HeldSocket, err error) {
	p, _, err := find(runDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, End(runDir)
	}
	if err != nil {
		return nil, err
	}
	defer p.close()
	s, err := fdStoreOf(p)
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
