package meshd

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/net/http2"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/waittest"
)

// hold sends all but the last byte of a message as fast as the other side lets it, and then waits.
func hold(t *testing.T, cfg *tls.Config, address, method string, size int) *holding {
	t.Helper()
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", address, cfg)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	h := &holding{f: speakHTTP2(t, conn), stream: 65535, conn: 65535, left: size + 5 - 1}
	h.more = sync.NewCond(&h.mu)
	h.f.open(1, method)
	head := binary.BigEndian.AppendUint32([]byte{0}, uint32(size))
	must(t, h.f.WriteData(1, false, head))
	h.left -= len(head)
	h.stream -= len(head)
	h.conn -= len(head)
	go h.listen()
	go h.send()
	return h
}

type holding struct {
	f    framer
	more *sync.Cond

	mu           sync.Mutex // guards all below
	stream, conn int        // windows
	left         int
	ended        bool
	refused      atomic.Bool
}

func (h *holding) listen() {
	for {
		f, err := h.f.ReadFrame()
		h.mu.Lock()
		switch f := f.(type) {
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				h.conn += int(f.Increment)
			} else {
				h.stream += int(f.Increment)
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				h.f.WritePing(true, f.Data)
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				f.ForeachSetting(func(s http2.Setting) error {
					if s.ID == http2.SettingInitialWindowSize {
						h.stream += int(s.Val) - 65535
					}
					return nil
				})
				h.f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame, *http2.HeadersFrame, *http2.RSTStreamFrame, *http2.GoAwayFrame:
			h.ended = true
			h.refused.Store(true)
		}
		if err != nil {
			h.ended = true
		}
		ended := h.ended
		h.more.Broadcast()
		h.mu.Unlock()
		if ended {
			io.Copy(io.Discard, readerOf{h.f})
			return
		}
	}
}

type readerOf struct{ f framer }

func (r readerOf) Read([]byte) (int, error) {
	_, err := r.f.ReadFrame()
	return 0, err
}

var zeros = make([]byte, 16<<10)

func (h *holding) send() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.left > 0 && !h.ended {
		n := min(h.left, h.stream, h.conn, len(zeros))
		if n <= 0 {
			h.more.Wait()
			continue
		}
		h.left -= n
		h.stream -= n
		h.conn -= n
		if h.f.WriteData(1, false, zeros[:n]) != nil {
			return
		}
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// holdMany has many begin to send 4 MB each, and says how much more is on the heap while they do.
func holdMany(t *testing.T, n int, each func() *holding) (most uint64) {
	t.Helper()
	before := heap()
	var all []*holding
	for range n {
		all = append(all, each())
	}
	for range 15 {
		waittest.Quiet(200 * time.Millisecond)
		most = max(most, heap()-min(before, heap()))
	}
	left := 0
	for _, h := range all {
		h.mu.Lock()
		left += h.left
		h.mu.Unlock()
	}
	t.Logf("%d MB more on the heap, %d MB sent", most>>20, (n*(4<<20)-left)>>20)
	return most
}

// Two hundred strangers who each begin to send a token of 4 MB cost next to nothing. Not parallel: it measures.
func TestStrangersHoldLittle(t *testing.T) {
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	cfg := p.tlsAs(nil)
	most := holdMany(t, 200, func() *holding {
		return hold(t, cfg.Clone(), p.cfg.AgentAddress, "/"+agentapi.Service+"/Attest", 4<<20-5)
	})
	if most > 40<<20 {
		t.Errorf("200 strangers hold %d MB", most>>20)
	}
}

// A node may send long messages, but a few at a time, on however many connections. Not parallel: it measures.
func TestANodeHoldsLittle(t *testing.T) {
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	c, err := p.join(p.token("node-a", snapshot.RoleNode, "default/*"))
	must(t, err)
	cfg := p.tlsAs(&c)
	i := 0
	most := holdMany(t, 16, func() *holding {
		i++
		method := "/" + agentapi.Service + "/Sync"
		if i > 8 {
			method = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName
		}
		return hold(t, cfg.Clone(), p.cfg.AgentAddress, method, 4<<20-5)
	})
	if most < 10<<20 || most > 24<<20 {
		t.Errorf("a node holds %d MB: four messages of 4 MB are right", most>>20)
	}
}
