package capture

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/netns"
)

// Queues are the AF_XDP sockets that occupy the queues of a namespace's devices. Such a socket writes frames where no
// rule sees them, and CAP_NET_RAW suffices to open one. A queue takes only one socket: occupying it with an unused one
// keeps others out.
type Queues struct {
	mu   sync.Mutex // guards held
	held map[Queue]*os.File
}

// Queue is one queue of one device.
type Queue struct{ Device, Number int }

// String names the queue for ParseQueue.
func (q Queue) String() string { return fmt.Sprintf("%d.%d", q.Device, q.Number) }

// ParseQueue reads what String wrote.
func ParseQueue(text string) (q Queue, err error) {
	_, err = fmt.Sscanf(text, "%d.%d", &q.Device, &q.Number)
	return q, err
}

const (
	maxQueues = 1024 // of one device
	// how long the kernel may take to release a queue whose socket was closed, such as an earlier agent's
	lettingGo = 300 * time.Millisecond
)

// NewQueues starts with the queues that an earlier agent held.
func NewQueues(held map[Queue]*os.File) *Queues { return &Queues{held: held} }

// Hold occupies every queue in the namespace at path that is not held yet.
func (q *Queues) Hold(path string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return netns.Do(path, func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return fmt.Errorf("list the devices of %s: %w", path, err)
		}
		for _, l := range links {
			if err := q.device(l.Attrs().Index); err != nil {
				return fmt.Errorf("hold the queues of device %s in %s: %w", l.Attrs().Name, path, err)
			}
		}
		return nil
	})
}

func (q *Queues) device(index int) error {
	for n := range maxQueues {
		p := Queue{index, n}
		if q.held[p] != nil {
			continue
		}
		f, err := openUnusedQueue(p)
		for late := time.Now().Add(lettingGo); errors.Is(err, unix.EBUSY) && time.Now().Before(late); f,
			err = openUnusedQueue(p) {
			time.Sleep(10 * time.Millisecond)
		}
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EAFNOSUPPORT),
			errors.Is(err, unix.EOPNOTSUPP):
			return nil // no such queue or device any more; or the kernel has no such sockets
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("another agent serves this namespace, or a program holds queue %d by an AF_XDP socket "+
				"and could write frames past capture: end it: %w", n, err)
		case err != nil:
			return err
		}
		q.held[p] = f
	}
	return nil
}

// Held returns the sockets, which Envoy keeps open while no agent runs.
func (q *Queues) Held() map[Queue]*os.File {
	q.mu.Lock()
	defer q.mu.Unlock()
	return maps.Clone(q.held)
}

// Close releases the queues.
func (q *Queues) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range q.held {
		f.Close()
	}
	clear(q.held)
}

// openUnusedQueue opens an AF_XDP socket on a queue with the memory and rings that the kernel requires, and uses none
// of them.
func openUnusedQueue(p Queue) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "xdp")
	if err := attach(fd, p); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func attach(fd int, p Queue) error {
	size := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map a page: %w", err)
	}
	defer func() { _ = unix.Munmap(mem) }() // the socket keeps the page
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&mem[0]))), Len: uint64(size), Size: uint32(size)}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0)
	if errno != 0 {
		return fmt.Errorf("register a page: %w", errno)
	}
	for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_TX_RING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_XDP, ring, 1); err != nil {
			return fmt.Errorf("make a ring: %w", err)
		}
	}
	return unix.Bind(fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(p.Device), QueueID: uint32(p.Number)})
}
