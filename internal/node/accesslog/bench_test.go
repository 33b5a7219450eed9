package accesslog

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	servicev3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// BenchmarkRequests receives what a gateway's Envoy says of requests, 20 a message, as it does.
func BenchmarkRequests(b *testing.B) {
	const entries = 20
	logged := &servicev3.StreamAccessLogsMessage_HTTPAccessLogEntries{}
	msg := &servicev3.StreamAccessLogsMessage{
		LogEntries: &servicev3.StreamAccessLogsMessage_HttpLogs{HttpLogs: logged},
	}
	for i := range entries {
		e := new(accesslogv3.HTTPAccessLogEntry)
		if err := protojson.Unmarshal(fmt.Appendf(nil, gatewayEntry, 40000+i), e); err != nil {
			b.Fatal(err)
		}
		msg.GetHttpLogs().LogEntry = append(msg.GetHttpLogs().LogEntry, e)
	}
	raw, err := proto.Marshal(msg)
	if err != nil {
		b.Fatal(err)
	}
	s := New(Config{
		Log: slog.New(slog.DiscardHandler), Path: filepath.Join(b.TempDir(), "access.log"), MaxBytes: 1 << 20,
	})
	b.ReportAllocs()
	for b.Loop() {
		got := batch{log: "ingress", take: s.take}
		if err := got.Decode(raw); err != nil {
			b.Fatal(err)
		}
		if err := s.file.flush(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/entries, "ns/entry")
}

const gatewayEntry = `{"commonProperties":{
 "downstreamRemoteAddress":{"socketAddress":{"address":"172.31.0.9","portValue":%[1]d}},"downstreamDirectRemoteAddress":{"socketAddress":{"address":"172.31.0.9","portValue":%[1]d}},
 "downstreamLocalAddress":{"socketAddress":{"address":"172.31.0.1","portValue":15443}},
 "tlsProperties":{"tlsVersion":"TLSv1_3","tlsCipherSuite":4865,"tlsSniHostname":"payments.default.retail.fed.cards.example",
  "localCertificateProperties":{"subjectAltName":[{"uri":"spiffe://cards.example/ns/isthmus-system/sa/federation-gateway"}],"subject":"CN=x"},
  "peerCertificateProperties":{"subjectAltName":[{"uri":"spiffe://retail.example/ns/isthmus-system/sa/federation-gateway"}],"subject":"CN=y"},"tlsSessionId":""},
 "startTime":"2026-11-22T10:00:00.123456Z","timeToLastRxByte":"0.000123s","timeToFirstUpstreamTxByte":"0.0002s","timeToLastUpstreamTxByte":"0.0002s","timeToFirstUpstreamRxByte":"0.0012s","timeToLastUpstreamRxByte":"0.0012s","timeToFirstDownstreamTxByte":"0.0012s","timeToLastDownstreamTxByte":"0.0012s",
 "upstreamRemoteAddress":{"socketAddress":{"address":"10.1.0.11","portValue":8080}},"upstreamLocalAddress":{"socketAddress":{"address":"10.1.0.1","portValue":33012}},
 "upstreamCluster":"export/retail/payments.default.retail.fed.cards.example","routeName":"x","duration":"0.0013s","upstreamRequestAttemptCount":1,
 "streamId":"6f3c7a9e-8a51-4f3e-9c6e-1234567890ab","downstreamWireBytesSent":"1100","downstreamWireBytesReceived":"220","upstreamWireBytesSent":"240","upstreamWireBytesReceived":"1090",
 "customTags":{"peer":"retail","object":"FederatedExport default/payments","fingerprint":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","not_after":"2026-11-23T10:00:00.000Z"}},
 "protocolVersion":"HTTP2",
 "request":{"requestMethod":"GET","scheme":"http","authority":"payments.default.svc.cluster.local","path":"/charges?id=1","userAgent":"curl/8","requestHeadersBytes":"220","requestHeaders":{"isthmus-caller":"spiffe://retail.example/ns/default/sa/storefront"}},
 "response":{"responseCode":200,"responseHeadersBytes":"80","responseBodyBytes":"1024","responseCodeDetails":"via_upstream"}}`

// BenchmarkCrossings receives the same as lines.
func BenchmarkCrossings(b *testing.B) {
	const entries = 40
	var lines []string
	for range entries {
		lines = append(lines, crossedIn)
	}
	wire := exported(b, lines...)
	s := New(Config{
		Log: slog.New(slog.DiscardHandler), Path: filepath.Join(b.TempDir(), "access.log"), MaxBytes: 1 << 20,
	})
	b.ReportAllocs()
	for b.Loop() {
		if err := (&export{take: s.take}).Decode(wire); err != nil {
			b.Fatal(err)
		}
		if err := s.file.flush(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/entries, "ns/entry")
}
