package accesslog

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Config of a Service.
type Config struct {
	Log *slog.Logger
	// Path of the file of entries that belong to no known source. Those of a peer or a workload have files of their own
	// beside it, with its name before the ending: access.log, access.<peer>.log, access.<namespace>.<workload>.log.
	Path string
	// Questions is the path of the file of questions about names outside the mesh.
	Questions string
	// MaxBytes of each file and of the one older file that is kept beside it.
	MaxBytes int64
	// Changed is called when a new plaintext caller was seen; nil for nothing.
	Changed func()
	// Unserved is called with each workload whose own program did not accept a connection. It must not block. Default:
	// nothing.
	Unserved func(workload string)
}

// Service is Envoy's access log service.
type Service struct {
	cfg       Config
	tally     *tally
	file      *shares
	questions *shares
	limit     *rate.Limiter // of refusals said in the agent's own log
	failing   atomic.Bool   // the file cannot be written
	silenced  atomic.Uint64 // refusals that the limit left out since the last that was said
	plaintext plaintext
	now       func() time.Time
}

// New makes a service. It opens its file with the first entry.
func New(cfg Config) *Service {
	if cfg.Unserved == nil {
		cfg.Unserved = func(string) {}
	}
	return &Service{
		cfg: cfg, tally: newTally(), file: newShares(cfg.Path, cfg.MaxBytes),
		questions: newShares(cfg.Questions, cfg.MaxBytes), limit: rate.NewLimiter(10, 50), now: time.Now,
	}
}

// Peers returns what each peer did so far, by MeshPeer name.
func (s *Service) Peers() map[string]agentapi.PeerCounts { return s.tally.byPeer() }

// Close the files.
func (s *Service) Close() error { return errors.Join(s.file.close(), s.questions.close()) }

// Register adds the service to a server whose codec leaves messages that decode themselves to do so
// (adsproxy.NewCodec).
func (s *Service) Register(to *grpc.Server) {
	to.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.accesslog.v3.AccessLogService",
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: "StreamAccessLogs", ClientStreams: true, Handler: s.stream}},
	}, s)
	s.registerExport(to)
}

// stream receives entries from Envoy until Envoy ends the stream.
func (s *Service) stream(_ any, from grpc.ServerStream) error {
	b := batch{take: s.take}
	for {
		if err := from.RecvMsg(&b); err != nil {
			return err
		}
		s.reportWriteError(s.file.flush())
	}
}

// batch reads messages of a stream. The first one names the log.
type batch struct {
	log  string
	take func(Entry)
}

// Decode reads envoy.service.accesslog.v3.StreamAccessLogsMessage.
func (b *batch) Decode(data []byte) error {
	return eachField(data, func(n protowire.Number, f field) error {
		switch n {
		case 1:
			return eachField(f.bytes, func(n protowire.Number, f field) error {
				if n == 2 {
					b.log = string(f.bytes)
				}
				return nil
			})
		case 2:
			return b.entries(f.bytes, httpEntry, fromHTTP)
		case 3:
			return b.entries(f.bytes, tcpEntry, fromTCP)
		}
		return nil
	})
}

func (b *batch) entries(list []byte, m message, from func(string, *record) Entry) error {
	return eachField(list, func(n protowire.Number, f field) error {
		if n != 1 {
			return nil
		}
		var r record
		if err := m.read(&r, f.bytes); err != nil {
			return err
		}
		b.take(from(b.log, &r))
		return nil
	})
}

func (s *Service) take(e Entry) {
	if e.Log == wellknown.LogPlaintext {
		s.recordPlaintext(&e)
		return
	}
	if e.Log == wellknown.LogUnserved {
		s.cfg.Unserved(e.Tags[tagWorkload])
		return
	}
	if !e.Refused() && (e.Log == wellknown.LogInbound || e.Log == wellknown.LogOutbound) {
		return // Envoy cannot tell in all cases: a client left, an upgrade ended
	}
	if !s.tally.add(&e) {
		return
	}
	if err := s.file.write(&e); err != nil {
		s.reportWriteError(err)
	}
	if e.Refused() {
		s.say(&e)
	}
}

// reportWriteError logs once that entries are being lost, and once that they no longer are.
func (s *Service) reportWriteError(err error) {
	if failed := err != nil; s.failing.Swap(failed) == failed {
		return
	}
	if err != nil {
		s.cfg.Log.Error("access log not written, entries are lost until it can be", "file", s.cfg.Path, "error", err)
		return
	}
	s.cfg.Log.Warn("access log written again", "file", s.cfg.Path, "lost", s.file.lostEntries())
}

func (s *Service) say(e *Entry) {
	if !s.limit.Allow() {
		s.silenced.Add(1)
		return
	}
	attrs := []any{
		"log", e.Log, "verdict", e.Verdict, "class", e.Class, "caller", e.Caller, "remote", e.Remote,
		"destination", e.Destination, "reason", e.Reason,
	}
	if e.Peer != "" {
		attrs = append(attrs, "peer", e.Peer)
	}
	if e.AssertedBy != "" {
		attrs = append(attrs, "asserted_by", e.AssertedBy)
	}
	if e.http {
		attrs = append(attrs, "method", e.Method, "path", e.Path, "code", e.Code)
	}
	if n := s.silenced.Swap(0); n > 0 {
		attrs = append(attrs, "suppressed", n)
	}
	if e.Verdict == verdictFailed {
		s.cfg.Log.Warn("failed", attrs...)
		return
	}
	s.cfg.Log.Warn("refused", attrs...)
}

var (
	descRefused = prometheus.NewDesc("isthmus_refusals_total",
		"Calls refused by policy (denied), by the parser (malformed) or in the TLS handshake (handshake), or that failed (failed), by class.",
		[]string{"log", "verdict", "class"}, nil)
	descLost = prometheus.NewDesc("isthmus_access_log_lost_total",
		"Entries of the access log that could not be written.", nil, nil)
	descPeer = map[string]*prometheus.Desc{
		"handshakes": prometheus.NewDesc("isthmus_peer_handshakes_total", "TLS handshakes with a peer mesh.",
			[]string{"peer", "result"}, nil),
		"requests": prometheus.NewDesc("isthmus_peer_requests_total",
			"Requests and TCP connections carried to or from a peer mesh.", []string{"peer"}, nil),
		"denials": prometheus.NewDesc("isthmus_peer_denials_total",
			"Requests and connections of a peer mesh refused by policy.", []string{"peer"}, nil),
		"bytes": prometheus.NewDesc("isthmus_peer_bytes_total", "Bytes exchanged with a peer mesh.",
			[]string{"peer", "direction"}, nil),
	}
)

// Describe implements prometheus.Collector.
func (s *Service) Describe(ch chan<- *prometheus.Desc) {
	ch <- descRefused
	ch <- descLost
	for _, d := range descPeer {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Service) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(descLost, s.file.lostEntries()+s.questions.lostEntries())
	for r, n := range s.tally.refusals() {
		counter(descRefused, n, r.Log, r.Verdict, r.Class)
	}
	for peer, c := range s.tally.byPeer() {
		counter(descPeer["handshakes"], c.HandshakesOK, peer, "ok")
		counter(descPeer["handshakes"], c.HandshakesFailed, peer, "failed")
		counter(descPeer["requests"], c.Requests, peer)
		counter(descPeer["denials"], c.Denials, peer)
		counter(descPeer["bytes"], c.BytesIn, peer, "in")
		counter(descPeer["bytes"], c.BytesOut, peer, "out")
	}
}
