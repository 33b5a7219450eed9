package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// pending holds the questions of one workload that are being asked upstream, at most maxForwards. Those that came over
// UDP are written to memory that outlives the agent if another process holds it too (memfd_create(2)), so that the next
// agent asks them again.
type pending struct {
	file      *os.File
	free      chan int        // slots without a question
	inherited map[int]message // by an earlier agent; not written after newPending
}

// A slot holds the length of the question, or 0 for none, where the question came from, and its text. Slots do not
// cross pages, so none is half written when the agent is killed.
const (
	slotSize = 1024
	slotHead = 2 + 16 + 2
)

// newPending takes over the file of an earlier agent, or makes one if file is nil.
func newPending(file *os.File) (*pending, error) {
	if file == nil {
		fd, err := unix.MemfdCreate("isthmus-dns", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("make memory for pending questions: %w", err)
		}
		file = os.NewFile(uintptr(fd), "pending")
	}
	p := &pending{file: file, free: make(chan int, maxForwards), inherited: map[int]message{}}
	if err := file.Truncate(maxForwards * slotSize); err != nil {
		return nil, errors.Join(fmt.Errorf("make memory for pending questions: %w", err), file.Close())
	}
	for slot := range maxForwards {
		if m, ok := p.read(slot); ok {
			p.inherited[slot] = m
		} else {
			p.free <- slot
		}
	}
	return p, nil
}

func (p *pending) read(slot int) (message, bool) {
	b := make([]byte, slotSize)
	if _, err := p.file.ReadAt(b, int64(slot)*slotSize); err != nil {
		return message{}, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if n == 0 || n > maxQuestion {
		return message{}, false
	}
	from := netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[2:18])).Unmap(), binary.BigEndian.Uint16(b[18:]))
	return message{from, b[slotHead : slotHead+n]}, true
}

// write writes a question into a slot.
func (p *pending) write(slot int, m message) error {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(m.text)))
	from := m.from.Addr().As16()
	b = binary.BigEndian.AppendUint16(append(b, from[:]...), m.from.Port())
	_, err := p.file.WriteAt(append(b, m.text...), int64(slot)*slotSize)
	return err
}

// release frees the slot of an answered question.
func (p *pending) release(slot int) {
	// fails when the file is closed; then nobody reads it here
	_, _ = p.file.WriteAt([]byte{0, 0}, int64(slot)*slotSize)
	p.free <- slot
}
