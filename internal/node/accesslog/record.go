package accesslog

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// record holds the needed fields of one log entry (envoy.data.accesslog.v3). Envoy sends three times as much for every
// request, and decoding all of it into Go values costs more than everything else, so the fields are read from the wire
// here and the rest is skipped.
type record struct {
	remote, direct, local, upstreamLocal     endpoint
	sni, uri                                 string // of the peer's certificate
	names                                    int    // URIs in it
	start, duration                          span
	toUpstream                               bool
	cluster, ended, stream                   string
	upstreamFailure, failure                 string // of the transport
	flags                                    flags  // of what went wrong
	tags                                     map[string]string
	sent, received                           uint64 // downstream, on the wire
	upstreamSent, upstreamReceived           uint64
	connectionReceived, connectionSent       uint64 // TCP
	method, code                             uint64 // HTTP
	authority, path, details, assertedCaller string
	key, value                               string // of the map entry being read
}

// flags are a set of Envoy's response flags, by their field numbers in envoy.data.accesslog.v3.ResponseFlags.
type flags uint32

const (
	noHealthyUpstream       flags = 1 << 2
	upstreamTimeout         flags = 1 << 3
	localReset              flags = 1 << 4
	upstreamReset           flags = 1 << 5
	upstreamUnreachable     flags = 1 << 6
	upstreamTermination     flags = 1 << 7
	upstreamOverflow        flags = 1 << 8
	noRoute                 flags = 1 << 9
	unauthorized            flags = 1 << 13
	clientLeft              flags = 1 << 15
	retryLimit              flags = 1 << 16
	streamIdle              flags = 1 << 17
	downstreamProtocolError flags = 1 << 19
	maxDuration             flags = 1 << 20
	durationTimeout         flags = 1 << 23
	upstreamProtocolError   flags = 1 << 24
	noCluster               flags = 1 << 25
	overload                flags = 1 << 26
	unresolved              flags = 1 << 27
	clientReset             flags = 1 << 28

	lastFlag = 28
)

// endpoint is an IP address and a port.
type endpoint struct {
	ip   string
	port uint64
}

// span is google.protobuf.Timestamp or Duration.
type span struct{ seconds, nanos uint64 }

// field is one field on the wire: a number, or the bytes of anything longer.
type field struct {
	number uint64
	bytes  []byte
}

type reader func(*record, field) error

// message says what to do with those fields of a message that are wanted, by their numbers.
type message []reader

var (
	httpEntry = message{1: nested(common), 3: nested(httpRequest), 4: nested(httpResponse)}
	tcpEntry  = message{1: nested(common), 2: nested(connection)}

	common = message{
		2:  address(func(r *record) *endpoint { return &r.remote }),
		3:  address(func(r *record) *endpoint { return &r.local }),
		4:  nested(tlsProperties),
		5:  timestamp(func(r *record) *span { return &r.start }),
		13: present(func(r *record) *bool { return &r.toUpstream }),
		14: address(func(r *record) *endpoint { return &r.upstreamLocal }),
		15: text(func(r *record) *string { return &r.cluster }),
		16: nested(responseFlags),
		18: text(func(r *record) *string { return &r.upstreamFailure }),
		20: address(func(r *record) *endpoint { return &r.direct }),
		22: entry(func(r *record) {
			if r.tags == nil {
				r.tags = map[string]string{}
			}
			r.tags[r.key] = r.value
		}),
		23: timestamp(func(r *record) *span { return &r.duration }),
		25: text(func(r *record) *string { return &r.ended }),
		26: text(func(r *record) *string { return &r.stream }),
		28: text(func(r *record) *string { return &r.failure }),
		29: number(func(r *record) *uint64 { return &r.sent }),
		30: number(func(r *record) *uint64 { return &r.received }),
		31: number(func(r *record) *uint64 { return &r.upstreamSent }),
		32: number(func(r *record) *uint64 { return &r.upstreamReceived }),
	}
	tlsProperties = message{
		3: text(func(r *record) *string { return &r.sni }),
		5: nested(message{1: nested(message{1: func(r *record, f field) error { // certificate, alternative name, URI
			r.uri, r.names = string(f.bytes), r.names+1
			return nil
		}})}),
	}
	responseFlags = func() message {
		m := make(message, lastFlag+1)
		for n := range m {
			m[n] = func(r *record, f field) error {
				if f.bytes != nil || f.number != 0 { // a message that is present, or a boolean that is true
					r.flags |= 1 << n
				}
				return nil
			}
		}
		return m
	}()
	connection = message{
		1: number(func(r *record) *uint64 { return &r.connectionReceived }),
		2: number(func(r *record) *uint64 { return &r.connectionSent }),
	}
	httpRequest = message{
		1: number(func(r *record) *uint64 { return &r.method }),
		3: text(func(r *record) *string { return &r.authority }),
		5: text(func(r *record) *string { return &r.path }),
		13: entry(func(r *record) {
			if r.key == callerHeader {
				r.assertedCaller = r.value
			}
		}),
	}
	httpResponse = message{
		1: nested(message{1: number(func(r *record) *uint64 { return &r.code })}),
		6: text(func(r *record) *string { return &r.details }),
	}
)

// read goes through the fields of a message.
func (m message) read(r *record, b []byte) error {
	return eachField(b, func(n protowire.Number, f field) error {
		if int(n) < len(m) && m[n] != nil {
			return m[n](r, f)
		}
		return nil
	})
}

func eachField(b []byte, do func(protowire.Number, field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("read an access log entry: %w", protowire.ParseError(n))
		}
		b = b[n:]
		var f field
		switch typ {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			f.number, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("read an access log entry: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if err := do(num, f); err != nil {
			return err
		}
	}
	return nil
}

func nested(m message) reader { return func(r *record, f field) error { return m.read(r, f.bytes) } }

func text(at func(*record) *string) reader {
	return func(r *record, f field) error { *at(r) = string(f.bytes); return nil }
}

func number(at func(*record) *uint64) reader {
	return func(r *record, f field) error { *at(r) = f.number; return nil }
}

func present(at func(*record) *bool) reader {
	return func(r *record, _ field) error { *at(r) = true; return nil }
}

// address reads envoy.config.core.v3.Address, of which only socket addresses are wanted.
func address(at func(*record) *endpoint) reader {
	return nested(message{1: nested(message{
		2: text(func(r *record) *string { return &at(r).ip }),
		3: number(func(r *record) *uint64 { return &at(r).port }),
	})})
}

func timestamp(at func(*record) *span) reader {
	return nested(message{
		1: number(func(r *record) *uint64 { return &at(r).seconds }),
		2: number(func(r *record) *uint64 { return &at(r).nanos }),
	})
}

// entry reads one entry of a map from text to text.
func entry(done func(*record)) reader {
	m := message{
		1: text(func(r *record) *string { return &r.key }),
		2: text(func(r *record) *string { return &r.value }),
	}
	return func(r *record, f field) error {
		r.key, r.value = "", ""
		if err := m.read(r, f.bytes); err != nil {
			return err
		}
		done(r)
		return nil
	}
}
