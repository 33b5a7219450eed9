package cgrouptest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/cgroup"
	"isthmus.dev/isthmus/internal/node/netns"
)

// helper is the environment variable by which this program knows that it is to dial for another.
const helper = "ISTHMUS_TEST_DIAL"

// Dial connects to an address from inside a network namespace, by a socket of the group with this name. A process of
// its own opens the socket, so that no other of this process becomes the group's meanwhile; the program calls Serve
// before all else.
func Dial(group, namespace, address string, mark int) (net.Conn, error) {
	g := cgroup.New(group)
	if err := g.Make(); err != nil {
		return nil, err
	}
	defer g.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "pair")
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe", namespace, address, strconv.Itoa(mark))
	cmd.Env, cmd.ExtraFiles = []string{helper + "=1"}, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.FD()}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.Join(failure(cmd), fmt.Errorf("dial %s: %s", address, out))
	}
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), rights, unix.MSG_DONTWAIT)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(err, errors.New("the helper sent no socket"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "connection")
	defer f.Close()
	return net.FileConn(f)
}

// failure returns the error number that the helper ended with.
func failure(cmd *exec.Cmd) error {
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		return syscall.Errno(code)
	}
	return nil
}

// Serve dials for another process if this one was started for that, and ends.
func Serve() {
	if os.Getenv(helper) == "" {
		return
	}
	err := serve(os.Args[1], os.Args[2], os.Args[3])
	if err == nil {
		os.Exit(0)
	}
	fmt.Println(err)
	var number syscall.Errno
	if errors.As(err, &number) {
		os.Exit(int(number))
	}
	os.Exit(int(syscall.ETIMEDOUT))
}

func serve(namespace, address, mark string) error {
	m, err := strconv.Atoi(mark)
	if err != nil {
		return err
	}
	return netns.Do(namespace, func() error {
		d := net.Dialer{Timeout: 2 * time.Second, Control: func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET,
					unix.SO_MARK, m)
			}), err)
		}}
		c, err := d.Dial("tcp", address)
		if err != nil {
			return err
		}
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			return err
		}
		return unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(f.Fd())), nil, 0)
	})
}
