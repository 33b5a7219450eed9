package accesslog

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"isthmus.dev/isthmus/internal/wellknown"
)

// Requests that cross the boundary come as OpenTelemetry log records (opentelemetry.proto.collector.logs.v1), whose
// bodies are lines of wellknown.CrossingFields.

func (s *Service) registerExport(to *grpc.Server) {
	to.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.logs.v1.LogsService",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: func(
			_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor,
		) (any, error) {
			if err := decode(&export{take: s.take}); err != nil {
				return nil, err
			}
			s.reportWriteError(s.file.flush())
			return new(emptypb.Empty), nil // the same on the wire as an ExportLogsServiceResponse without a complaint
		}}},
	}, s)
}

// export reads ExportLogsServiceRequest messages.
type export struct{ take func(Entry) }

// Decode reads one message: resource logs, their scope logs, and the records of those.
func (x *export) Decode(data []byte) error {
	return eachField(data, within(1, func(resource []byte) error {
		return eachField(resource, within(2, func(scope []byte) error {
			return eachField(scope, within(2, x.record))
		}))
	}))
}

// within reads the messages that are in the field with this number.
func within(number protowire.Number, read func([]byte) error) func(protowire.Number, field) error {
	return func(n protowire.Number, f field) error {
		if n != number {
			return nil
		}
		return read(f.bytes)
	}
}

// record reads time and body of opentelemetry.proto.logs.v1.LogRecord.
func (x *export) record(data []byte) error {
	var start uint64 // ns
	var line string
	err := eachField(data, func(n protowire.Number, f field) error {
		switch n {
		case 1:
			start = f.number
		case 5:
			return eachField(f.bytes, within(1, func(text []byte) error { line = string(text); return nil }))
		}
		return nil
	})
	if err != nil {
		return err
	}
	e, err := fromLine(start, line)
	if err != nil {
		return err
	}
	x.take(e)
	return nil
}

// fromLine reads the line of one request that began at start, in ns.
func fromLine(start uint64, line string) (Entry, error) {
	fields := strings.SplitN(line, wellknown.CrossingSeparator, wellknown.CrossingFields)
	if len(fields) < wellknown.CrossingFields {
		return Entry{}, fmt.Errorf("read the log of a request: %d fields, want %d",
			len(fields), wellknown.CrossingFields)
	}
	for i, v := range fields {
		if v == "-" {
			fields[i] = ""
		}
	}
	number := func(i int) uint64 {
		n, _ := strconv.ParseUint(fields[i], 10, 64) // an absent one is 0
		return n
	}
	took := number(wellknown.CrossingTook) // µs
	if took == 0 {
		took = number(wellknown.CrossingLasted) * 1000
	}
	received, sent := number(wellknown.CrossingReceived), number(wellknown.CrossingSent)
	clients := strings.Split(fields[wellknown.CrossingClient], ",")
	r := &record{
		start:         span{start / 1e9, start % 1e9},
		duration:      span{took / 1e6, took % 1e6 * 1000},
		direct:        endpointOf(fields[wellknown.CrossingFrom]),
		upstreamLocal: endpointOf(fields[wellknown.CrossingUpstreamAt]),
		sni:           fields[wellknown.CrossingSNI],
		uri:           clients[len(clients)-1],
		names:         len(clients),
		received:      received, sent: sent, upstreamReceived: received, upstreamSent: sent,
		method:          uint64(core.RequestMethod_value[fields[wellknown.CrossingMethod]]),
		authority:       fields[wellknown.CrossingAuthority],
		path:            fields[wellknown.CrossingPath],
		assertedCaller:  fields[wellknown.CrossingAsserted],
		code:            number(wellknown.CrossingStatus),
		details:         fields[wellknown.CrossingDetails],
		flags:           flagsOf(fields[wellknown.CrossingFlags]),
		upstreamFailure: fields[wellknown.CrossingUpstream],
		tags: map[string]string{
			tagPeer:       firstOf(fields[wellknown.CrossingServedBy], fields[wellknown.CrossingPeer]),
			tagObject:     fields[wellknown.CrossingObject],
			"sni":         fields[wellknown.CrossingSNI],
			"fingerprint": fields[wellknown.CrossingFingerprint],
			"not_after":   fields[wellknown.CrossingNotAfter],
		},
	}
	maps.DeleteFunc(r.tags, func(_, v string) bool { return v == "" })
	return fromHTTP(fields[wellknown.CrossingLog], r), nil
}

// endpointOf reads an address and a port. What Envoy handed over inside itself has none.
func endpointOf(text string) endpoint {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return endpoint{}
	}
	return endpoint{a.Addr().String(), uint64(a.Port())}
}

// flagsOf reads the short names of Envoy's response flags.
func flagsOf(text string) flags {
	var out flags
	for name := range strings.SplitSeq(text, ",") {
		out |= flagNames[name]
	}
	return out
}

// flagNames are the short names of the flags that an entry is judged by.
var flagNames = map[string]flags{
	"UH": noHealthyUpstream, "UT": upstreamTimeout, "LR": localReset, "UR": upstreamReset, "UF": upstreamUnreachable,
	"UC": upstreamTermination, "UO": upstreamOverflow, "NR": noRoute, "UAEX": unauthorized, "DC": clientLeft,
	"URX": retryLimit, "SI": streamIdle, "DPE": downstreamProtocolError, "UMSDR": maxDuration, "DT": durationTimeout,
	"UPE": upstreamProtocolError, "NC": noCluster, "OM": overload, "DF": unresolved, "DR": clientReset,
}
