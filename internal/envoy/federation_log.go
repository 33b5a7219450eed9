package envoy

import (
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"

	"isthmus.dev/isthmus/internal/wellknown"
)

// crossings logs every request of a chain as one line (wellknown.CrossingFields). Of the peers that may serve it, peer
// is the first one; servedBy is the one that did.
func crossings(log, peer, servedBy, object, sni string) *accesslogv3.AccessLog {
	line := [wellknown.CrossingFields]string{
		wellknown.CrossingLog: log, wellknown.CrossingPeer: peer, wellknown.CrossingServedBy: servedBy,
		wellknown.CrossingObject: object, wellknown.CrossingSNI: sni,
		wellknown.CrossingClient:      "%DOWNSTREAM_PEER_URI_SAN%",
		wellknown.CrossingFingerprint: "%DOWNSTREAM_PEER_FINGERPRINT_256%",
		wellknown.CrossingNotAfter:    "%DOWNSTREAM_PEER_CERT_V_END%",
		wellknown.CrossingFrom:        "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
		wellknown.CrossingUpstreamAt:  "%UPSTREAM_LOCAL_ADDRESS%",
		wellknown.CrossingTook:        between("DS_RX_BEG", "DS_TX_END"),
		wellknown.CrossingLasted:      "%DURATION%",
		wellknown.CrossingReceived:    "%UPSTREAM_WIRE_BYTES_RECEIVED%",
		wellknown.CrossingSent:        "%UPSTREAM_WIRE_BYTES_SENT%",
		wellknown.CrossingMethod:      "%REQ(:METHOD)%",
		wellknown.CrossingAuthority:   "%REQ(:AUTHORITY)%",
		wellknown.CrossingPath:        "%REQ(:PATH)%",
		wellknown.CrossingAsserted:    "-",
		wellknown.CrossingStatus:      "%RESPONSE_CODE%",
		wellknown.CrossingDetails:     "%RESPONSE_CODE_DETAILS%",
		wellknown.CrossingFlags:       "%RESPONSE_FLAGS%",
		wellknown.CrossingUpstream:    "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	}
	if log == ingressLog {
		line[wellknown.CrossingReceived] = "%DOWNSTREAM_WIRE_BYTES_RECEIVED%"
		line[wellknown.CrossingSent] = "%DOWNSTREAM_WIRE_BYTES_SENT%"
		line[wellknown.CrossingAsserted] = "%REQ(" + callerHeader + ")%"
	}
	body := strings.Join(line[:], wellknown.CrossingSeparator)
	return accessLog(nil, &otelv3.OpenTelemetryAccessLogConfig{
		GrpcService: grpcToAgent(), DisableBuiltinLabels: true, BufferSizeBytes: u32(logBuffer),
		Body: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: body}},
	})
}
