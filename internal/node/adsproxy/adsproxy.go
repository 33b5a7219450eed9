// Package adsproxy passes Envoy's delta-ADS stream through to the control plane as it is, byte for byte: the agent
// neither reads nor keeps any of it. Without a control plane the stream waits; Envoy goes on with the configuration it
// has.
package adsproxy

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that Codec falls back to
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/wellknown"
)

const (
	service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
	method  = "DeltaAggregatedResources"
)

// frame is one message that is not looked into.
type frame struct{ data mem.BufferSlice }

// decoder is a message that reads itself; the bytes are not its own afterwards.
type decoder interface{ Decode([]byte) error }

// Codec passes frames untouched, lets messages read themselves that can, and leaves every other to the protobuf codec.
type Codec struct{ proto encoding.CodecV2 }

// NewCodec makes the codec for the server that Register is called with.
func NewCodec() Codec { return Codec{proto: encoding.GetCodecV2("proto")} }

// Name returns the name of the content subtype.
func (Codec) Name() string { return "proto" }

// Marshal a message.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return f.data, nil
	}
	return c.proto.Marshal(v)
}

// Unmarshal a message.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		data.Ref()
		f.data = data
		return nil
	}
	if d, ok := v.(decoder); ok {
		whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer whole.Free()
		return d.Decode(whole.ReadOnlyData())
	}
	return c.proto.Unmarshal(data, v)
}

// Proxy forwards streams.
type Proxy struct {
	codec    Codec
	conn     func() *grpc.ClientConn
	workload string
	streams  atomic.Int64

	mu  sync.Mutex         // guards end
	end context.CancelFunc // of the newest stream
}

// New returns a proxy that opens its streams on the connection that conn returns; nil means that there is no control
// plane yet. For the Envoy of a single workload, the proxy announces the workload. It forwards nothing that Envoy says
// about itself.
func New(conn func() *grpc.ClientConn, workload string) *Proxy {
	return &Proxy{codec: NewCodec(), conn: conn, workload: workload}
}

// Streams that are open to the control plane.
func (p *Proxy) Streams() int64 { return p.streams.Load() }

// Register adds the service to a server made with grpc.ForceServerCodecV2(NewCodec()).
func (p *Proxy) Register(s *grpc.Server) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: method, ServerStreams: true, ClientStreams: true, Handler: p.handle,
		}},
	}, p)
}

func (p *Proxy) handle(_ any, envoy grpc.ServerStream) error {
	conn := p.conn()
	if conn == nil {
		return status.Error(codes.Unavailable, "the agent has not joined the control plane yet")
	}
	g, ctx := errgroup.WithContext(envoy.Context())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.takeOver(cancel)
	if p.workload != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, wellknown.WorkloadKey, p.workload)
	}
	desc := &grpc.StreamDesc{StreamName: method, ServerStreams: true, ClientStreams: true}
	control, err := conn.NewStream(ctx, desc, "/"+service+"/"+method, grpc.ForceCodecV2(p.codec))
	if err != nil {
		return unavailable(err)
	}
	p.streams.Add(1)
	defer p.streams.Add(-1)
	// Whichever side ends first ends the stream: returning here ends Envoy's side, which frees the reader of it.
	up := make(chan error, 1)
	go func() { up <- pump(envoy.RecvMsg, control.SendMsg) }()
	g.Go(func() error { return pump(control.RecvMsg, envoy.SendMsg) })
	g.Go(func() error {
		select {
		case err := <-up:
			cancel()
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return unavailable(g.Wait())
}

// takeOver makes a stream the only one: an Envoy needs no more, and one that was broken into shall not use up what
// others need.
func (p *Proxy) takeOver(end context.CancelFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end != nil {
		p.end()
	}
	p.end = end
}

// pump copies messages until one side ends; io.EOF is a clean end.
func pump(recv, send func(any) error) error {
	for {
		var f frame
		if err := recv(&f); err != nil {
			return err
		}
		if err := send(&f); err != nil {
			return err
		}
	}
}

// unavailable is the error for Envoy: it retries soon and keeps its configuration.
func unavailable(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return status.Error(codes.Unavailable, "the control plane ended the stream")
	}
	return status.Error(codes.Unavailable, status.Convert(err).Message())
}
