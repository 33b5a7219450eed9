package envoy

import (
	"slices"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/proto"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// tag is one named value of a log entry. Value may contain Envoy's command operators.
type tag struct {
	name, value string
	ofHost      bool // the chosen endpoint's metadata of this name takes precedence
}

// certificateTags are values that the log protocol itself lacks.
var certificateTags = []tag{
	{name: "fingerprint", value: "%DOWNSTREAM_PEER_FINGERPRINT_256%"},
	{name: "not_after", value: "%DOWNSTREAM_PEER_CERT_V_END%"},
}

func httpLog(name string, filter *accesslogv3.AccessLogFilter, tags ...tag) *accesslogv3.AccessLog {
	return accessLog(filter, &grpclogv3.HttpGrpcAccessLogConfig{
		CommonConfig: logToAgent(name, tags), AdditionalRequestHeadersToLog: []string{callerHeader},
	})
}

func tcpLog(name string, filter *accesslogv3.AccessLogFilter, tags ...tag) *accesslogv3.AccessLog {
	return accessLog(filter, &grpclogv3.TcpGrpcAccessLogConfig{CommonConfig: logToAgent(name, tags)})
}

func accessLog(filter *accesslogv3.AccessLogFilter, config proto.Message) *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{
		Name:       "agent",
		Filter:     filter,
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: anyOf(config)},
	}
}

// logBuffer is how many bytes of entries Envoy gathers within a second; a message costs as much as several entries.
const logBuffer = 128 << 10

func logToAgent(name string, tags []tag) *grpclogv3.CommonGrpcAccessLogConfig {
	c := &grpclogv3.CommonGrpcAccessLogConfig{
		LogName: name, GrpcService: grpcToAgent(), TransportApiVersion: corev3.ApiVersion_V3,
		BufferSizeBytes: u32(logBuffer),
	}
	for _, t := range tags {
		ct := &tracingv3.CustomTag{Tag: t.name, Type: &tracingv3.CustomTag_Value{Value: t.value}}
		if t.ofHost {
			ct.Type = &tracingv3.CustomTag_Metadata_{Metadata: &tracingv3.CustomTag_Metadata{
				Kind: hostMetadata,
				MetadataKey: &metadatav3.MetadataKey{
					Key: hostTags,
					Path: []*metadatav3.MetadataKey_PathSegment{
						{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: t.name}},
					},
				},
				DefaultValue: t.value,
			}}
		}
		c.CustomTags = append(c.CustomTags, ct)
	}
	return c
}

// stringState is Envoy's factory for string values in filter state. stateOf prints one.
const stringState = "envoy.string"

func stateOf(key string) string { return "%FILTER_STATE(" + key + ":PLAIN)%" }

// hostMetadata is the metadata of the chosen endpoint.
var hostMetadata = &metadatav3.MetadataKind{Kind: &metadatav3.MetadataKind_Host_{Host: &metadatav3.MetadataKind_Host{}}}

// hostTags is the metadata namespace that tags with ofHost read.
const hostTags = "isthmus"

// when keeps an entry only if a CEL expression holds.
func when(expression string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{
		FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
			Name: "cel",
			ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{
				TypedConfig: anyOf(&celv3.ExpressionFilter{Expression: expression}),
			},
		}},
	}
}

// connectionRefusals logs connections that were refused or had no reachable destination. Failed TLS handshakes appear
// only in the listener's log and have no response flag. Two transport failure reasons are not refusals: that the other
// side has closed, and the TLS inspector's note that a connection is not TLS ("TLS_error|", while a handshake failure
// starts with "TLS_error:"); the chain decides whether plaintext is allowed.
func connectionRefusals(name string, tags ...tag) []*accesslogv3.AccessLog {
	return []*accesslogv3.AccessLog{
		tcpLog(name, anyOfFilters(unreached, when(`connection.transport_failure_reason != ""`+
			` && !connection.transport_failure_reason.startsWith("TLS_error|")`+
			` && !`+peerClosed+
			` || connection.termination_details.contains("rbac_access_denied")`)), tags...),
	}
}

// peerClosed is a CEL expression that holds if the other side closed the connection.
const peerClosed = `connection.transport_failure_reason.contains("system library")`

// refusals logs requests that Envoy answered or aborted itself.
func refusals(name string, tags ...tag) []*accesslogv3.AccessLog {
	return []*accesslogv3.AccessLog{httpLog(name, anyOfFilters(localResponses...), tags...)}
}

// refusalsAtClient is for proxies that programs call. It logs refusals, and HTTP/1.1 requests whose client closed its
// side before the response began. The client may have closed only its sending half; Envoy cannot tell and does not
// answer. A client that leaves during a response is not logged, since event streams end that way. HTTP/2 has no
// half-close of connections.
func refusalsAtClient(name string, tags ...tag) []*accesslogv3.AccessLog {
	closedEarly := allOfFilters(
		flagged("DC"), compared(accesslogv3.ComparisonFilter_EQ, 0), when(`request.protocol != "HTTP/2"`),
	)
	filter := anyOfFilters(append(slices.Clone(localResponses), closedEarly)...)
	return []*accesslogv3.AccessLog{httpLog(name, filter, tags...)}
}

// unreached matches connections without a reachable destination.
var unreached = flagged("UH", "UF", "UO", "URX", "NR", "NC", "DF", "OM")

// localResponses matches requests that were not answered by their destination, or not completely. Envoy's response
// flags show failures. Its other local responses show only in the response code details, which take an expression to
// test. So the expression runs only for requests whose HTTP or gRPC status may be a refusal. Responses of applications
// never match. Cheap tests that exclude most requests come first.
var localResponses = []*accesslogv3.AccessLogFilter{
	// All flags except those for clients that left.
	allOfFilters(
		flagged(), // any
		flagged("LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "RL", "UAEX", "RLSE", "URX", "SI", "IH", "DPE",
			"UMSDR", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "UDO"),
	),
	allOfFilters(
		anyOfFilters(answeredFrom(400), allOfFilters(speaksGRPC, grpcFailed)),
		when(`response.code_details != "via_upstream"`),
	),
}

// grpcRefused matches gRPC statuses other than OK. Requests that are not gRPC have UNKNOWN, unless their HTTP status
// maps to another one.
var (
	speaksGRPC = &accesslogv3.AccessLogFilter{
		FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{HeaderFilter: &accesslogv3.HeaderFilter{
			Header: headerMatcher(authz.Header{Name: "content-type", Comparison: authz.Comparison{
				Match: model.Match{Kind: model.Prefix, Value: "application/grpc"}, IgnoreCase: true,
			}}),
		}},
	}
	// grpcFailed matches gRPC statuses other than OK.
	grpcFailed = &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_GrpcStatusFilter{
		GrpcStatusFilter: &accesslogv3.GrpcStatusFilter{
			Statuses: []accesslogv3.GrpcStatusFilter_Status{accesslogv3.GrpcStatusFilter_OK}, Exclude: true,
		},
	}}
)

// flagged matches requests and connections that have any of these response flags, or any flag if none is given.
func flagged(flags ...string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
		ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: flags},
	}}
}

func anyOfFilters(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{
		OrFilter: &accesslogv3.OrFilter{Filters: filters},
	}}
}

func allOfFilters(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: filters},
	}}
}

// anyAnswered keeps an entry only if the response has one of these statuses, at least two.
func anyAnswered(statuses ...uint32) *accesslogv3.AccessLogFilter {
	return anyOfFilters(each(statuses, answered)...)
}

// answered keeps an entry only if the response has this status. It runs for every request, so it is not an expression.
func answered(status uint32) *accesslogv3.AccessLogFilter {
	return compared(accesslogv3.ComparisonFilter_EQ, status)
}

// answeredFrom keeps an entry only if the response has this status or a higher one.
func answeredFrom(status uint32) *accesslogv3.AccessLogFilter {
	return compared(accesslogv3.ComparisonFilter_GE, status)
}

func compared(op accesslogv3.ComparisonFilter_Op, status uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{
		FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslogv3.StatusCodeFilter{
			Comparison: &accesslogv3.ComparisonFilter{
				Op:    op,
				Value: &corev3.RuntimeUInt32{DefaultValue: status, RuntimeKey: "isthmus.unset"},
			},
		}},
	}
}

// unserved reports a connection that a workload's program did not accept to the agent immediately, so that it checks
// whether the program is running. On raw TCP nobody else can report it: the caller has already been admitted and only
// sees its connection close.
func unserved(w *model.Workload) *accesslogv3.AccessLog {
	c := logToAgent(wellknown.LogUnserved, []tag{workloadTag(w.ID.String())})
	c.BufferSizeBytes = u32(0)
	return accessLog(flagged("UF"), &grpclogv3.TcpGrpcAccessLogConfig{CommonConfig: c})
}

// workloadTag names the workload concerned.
func workloadTag(id string) tag { return tag{name: "workload", value: id} }

var (
	inboundLog  = wellknown.LogInbound
	outboundLog = wellknown.LogOutbound
)
