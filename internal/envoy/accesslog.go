package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/proto"

	"isthmus.dev/isthmus/internal/agentapi"
)

// tag is one named value of a log entry; Value may hold Envoy's command operators.
type tag struct {
	name, value string
	ofHost      bool // what the endpoint that was chosen says under this name comes first
}

// certificateTags are what the log protocol itself does not carry (facts: observability §0.3).
var certificateTags = []tag{
	{name: "fingerprint", value: "%DOWNSTREAM_PEER_FINGERPRINT_256%"}, {name: "not_after", value: "%DOWNSTREAM_PEER_CERT_V_END%"},
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
	return &accesslogv3.AccessLog{Name: "agent", Filter: filter, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: anyOf(config)}}
}

func logToAgent(name string, tags []tag) *grpclogv3.CommonGrpcAccessLogConfig {
	c := &grpclogv3.CommonGrpcAccessLogConfig{
		LogName: name, GrpcService: grpcToAgent(), TransportApiVersion: corev3.ApiVersion_V3,
		BufferSizeBytes: u32(128 << 10), // within a second; each message costs the agent as much as several entries
	}
	for _, t := range tags {
		ct := &tracingv3.CustomTag{Tag: t.name, Type: &tracingv3.CustomTag_Value{Value: t.value}}
		if t.ofHost {
			ct.Type = &tracingv3.CustomTag_Metadata_{Metadata: &tracingv3.CustomTag_Metadata{
				Kind:         &metadatav3.MetadataKind{Kind: &metadatav3.MetadataKind_Host_{Host: &metadatav3.MetadataKind_Host{}}},
				MetadataKey:  &metadatav3.MetadataKey{Key: hostTags, Path: []*metadatav3.MetadataKey_PathSegment{{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: t.name}}}},
				DefaultValue: t.value,
			}}
		}
		c.CustomTags = append(c.CustomTags, ct)
	}
	return c
}

// hostTags is where an endpoint's metadata holds what tags ofHost ask for.
const hostTags = "isthmus"

// when keeps an entry only if a CEL expression holds.
func when(expression string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
		Name: "cel", ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: anyOf(&celv3.ExpressionFilter{Expression: expression})},
	}}}
}

// handshakeRefusals logs failed TLS handshakes, which reach only the listener's log and carry no flag (facts: observability §0.5).
// What the system says of a connection that the other side has left is no refusal.
func handshakeRefusals(name string, tags ...tag) []*accesslogv3.AccessLog {
	return []*accesslogv3.AccessLog{tcpLog(name, when(`connection.transport_failure_reason != "" && !connection.transport_failure_reason.contains("system library")`), tags...)}
}

// refusals logs the requests that Envoy refused itself.
func refusals(name string, tags ...tag) []*accesslogv3.AccessLog {
	return []*accesslogv3.AccessLog{httpLog(name, anyAnswered(403, 400), tags...)}
}

// localRefusals logs those of them that were not another Envoy's, or the application's, to give.
func localRefusals(name string, tags ...tag) []*accesslogv3.AccessLog {
	return []*accesslogv3.AccessLog{httpLog(name, &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: []*accesslogv3.AccessLogFilter{
			anyAnswered(403, 400), when(`response.code_details != "via_upstream"`),
		}},
	}}, tags...)}
}

// anyAnswered keeps an entry only if the answer had one of these statuses, of which there are two or more.
func anyAnswered(statuses ...uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{
		OrFilter: &accesslogv3.OrFilter{Filters: each(statuses, answered)},
	}}
}

// answered keeps an entry only if the answer had this status. Every request asks this, so that it is no expression.
func answered(status uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslogv3.StatusCodeFilter{
		Comparison: &accesslogv3.ComparisonFilter{Value: &corev3.RuntimeUInt32{DefaultValue: status, RuntimeKey: "isthmus.unset"}},
	}}}
}

// flagged keeps an entry only if Envoy has set one of these response flags on it.
func flagged(flags ...string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
		ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: flags},
	}}
}

// workloadTag says at which workload of the node something was seen.
func workloadTag(id string) tag { return tag{name: "workload", value: id} }

var (
	inboundLog  = agentapi.LogInbound
	outboundLog = agentapi.LogOutbound
)
