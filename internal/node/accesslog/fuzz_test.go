package accesslog

import (
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	servicev3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// FuzzDecode: what the protobuf library reads is read here too, no entry is lost, and nothing makes it panic.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		`{"commonProperties":{` + caller + `,` + peerTag +
			`},"request":{"path":"/a?b","requestMethod":"PUT"},"response":{"responseCode":200}}`,
		`{"commonProperties":{"responseFlags":{"noRouteFound":true},"duration":"1.5s","startTime":"2026-11-22T10:00:00Z"}}`,
	} {
		h := new(accesslogv3.HTTPAccessLogEntry)
		if err := protojson.Unmarshal([]byte(text), h); err != nil {
			f.Fatal(err)
		}
		entries := &servicev3.StreamAccessLogsMessage_HTTPAccessLogEntries{
			LogEntry: []*accesslogv3.HTTPAccessLogEntry{h, h},
		}
		wire, err := proto.Marshal(&servicev3.StreamAccessLogsMessage{
			LogEntries: &servicev3.StreamAccessLogsMessage_HttpLogs{HttpLogs: entries},
		})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		n := 0
		b := batch{take: func(Entry) { n++ }}
		err := b.Decode(wire)
		var whole servicev3.StreamAccessLogsMessage
		if proto.Unmarshal(wire, &whole) != nil {
			return
		}
		if entries := len(whole.GetHttpLogs().GetLogEntry()) + len(whole.GetTcpLogs().GetLogEntry()); err != nil ||
			n < entries {
			t.Fatalf("the library reads %d entries, this %d: %v", entries, n, err)
		}
	})
}
