// Package adstest is a small, correct delta-ADS server for the bench's own tests.
package adstest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Server serves each proxy the resources that were set for it.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	identify func(context.Context) string

	mu        sync.Mutex // guards what follows
	resources map[string]map[string]*discovery.Resource
	changed   chan struct{} // closed and replaced at every change
	acks      int
}

// New makes a server that knows its proxies by identify.
func New(identify func(context.Context) string) *Server {
	return &Server{
		identify: identify, resources: map[string]map[string]*discovery.Resource{}, changed: make(chan struct{}),
	}
}

// Set sets one resource of a proxy; nil removes it.
func (s *Server) Set(proxy, name string, m proto.Message, typeURL string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := proxy + " " + typeURL
	if s.resources[key] == nil {
		s.resources[key] = map[string]*discovery.Resource{}
	}
	if m == nil {
		delete(s.resources[key], name)
	} else {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			panic(err) // a test's own literal
		}
		hash := sha256.Sum256(b)
		s.resources[key][name] = &discovery.Resource{
			Name: name, Version: hex.EncodeToString(hash[:8]), Resource: &anypb.Any{TypeUrl: typeURL, Value: b},
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// Acks is how many acknowledgements arrived.
func (s *Server) Acks() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acks
}

// subscription is one type on one stream.
type subscription struct {
	all   bool
	names map[string]bool
	sent  map[string]string // versions; "" says that the proxy was told that there is none
}

// DeltaAggregatedResources serves one stream.
func (s *Server) DeltaAggregatedResources(
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	requests, failed := make(chan *discovery.DeltaDiscoveryRequest), make(chan error, 1)
	go func() {
		for {
			req, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- req:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	subs, nonce, proxy := map[string]*subscription{}, 0, s.identify(stream.Context())
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		for _, typ := range slices.Sorted(maps.Keys(subs)) {
			resp := s.difference(proxy, typ, subs[typ])
			if resp == nil {
				continue
			}
			nonce++
			resp.Nonce = strconv.Itoa(nonce)
			if err := stream.Send(resp); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case req := <-requests:
			s.note(subs, req)
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// note takes one request into the subscriptions.
func (s *Server) note(subs map[string]*subscription, req *discovery.DeltaDiscoveryRequest) {
	if req.ResponseNonce != "" {
		s.mu.Lock()
		s.acks++
		s.mu.Unlock()
	}
	sub := subs[req.TypeUrl]
	if sub == nil {
		sub = &subscription{names: map[string]bool{}, sent: maps.Clone(req.InitialResourceVersions)}
		if sub.sent == nil {
			sub.sent = map[string]string{}
		}
		subs[req.TypeUrl] = sub
	}
	for _, n := range req.ResourceNamesSubscribe {
		if n == "*" {
			sub.all = true
			continue
		}
		sub.names[n] = true
	}
	for _, n := range req.ResourceNamesUnsubscribe {
		delete(sub.names, n)
		delete(sub.sent, n)
	}
}

// difference is what a proxy lacks of one type; nil when nothing.
func (s *Server) difference(proxy, typ string, sub *subscription) *discovery.DeltaDiscoveryResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.resources[proxy+" "+typ]
	names := maps.Clone(sub.names)
	if sub.all {
		for n := range have {
			names[n] = true
		}
	}
	resp := &discovery.DeltaDiscoveryResponse{TypeUrl: typ}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if r := have[n]; r != nil && sub.sent[n] != r.Version {
			sub.sent[n] = r.Version
			resp.Resources = append(resp.Resources, r)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(sub.sent)) {
		if have[n] == nil && sub.sent[n] != "" {
			sub.sent[n] = ""
			resp.RemovedResources = append(resp.RemovedResources, n)
		}
	}
	if len(resp.Resources)+len(resp.RemovedResources) == 0 {
		return nil
	}
	return resp
}
