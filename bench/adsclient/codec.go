package adsclient

import (
	"fmt"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// frame is one answer with its size on the wire.
type frame struct {
	size int
	resp *discovery.DeltaDiscoveryResponse
}

// sizing is the protobuf codec, except that it keeps the size of what it reads. The resources stay packed.
type sizing struct{}

// Name is what goes into the content type: the wire looks like any protobuf client's.
func (sizing) Name() string { return "proto" }

func (sizing) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("cannot send a %T", v)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (sizing) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("cannot receive into a %T", v)
	}
	b := data.Materialize()
	f.size, f.resp = len(b), new(discovery.DeltaDiscoveryResponse)
	return proto.Unmarshal(b, f.resp)
}
