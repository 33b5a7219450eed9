package xds

import (
	"maps"
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"isthmus.dev/isthmus/internal/envoy"
)

// typeStatus is the status of one resource type at one proxy.
type typeStatus struct {
	resources       int
	sent, acked     uint64 // generations
	sentAt, ackedAt time.Time
	nack            string
}

// TypeStatus is the status of one resource type at one proxy. Sent and Acked are generations; 0 means none.
type TypeStatus struct {
	Type            string
	Resources       int
	Sent, Acked     uint64
	SentAt, AckedAt time.Time
	Nack            string // Envoy's message while its last answer was a NACK
}

// ProxyStatus is the status of one proxy.
type ProxyStatus struct {
	Name      string
	Connected bool
	Since     time.Time // when the stream began, or the last one ended
	Types     []TypeStatus
}

// recordSent records a response that is being sent.
func (st *stream) recordSent(typ string, ts *typeState, generation uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	s := st.status[typ]
	s.resources, s.sent, s.sentAt = len(ts.sent), generation, st.server.cfg.Now()
	st.status[typ] = s
}

// recordUnchanged records that a generation changed nothing for a type, so it is in force already.
func (st *stream) recordUnchanged(typ string, ts *typeState, generation uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	s := st.status[typ]
	// it may have unsubscribed from what it rejected
	s.resources, s.sent, s.nack = len(ts.sent), generation, ts.reasons()
	if s.nack == "" {
		s.acked = generation
		if s.ackedAt.IsZero() {
			s.ackedAt = st.server.cfg.Now()
		}
	}
	st.status[typ] = s
}

// answered records an ACK or NACK and returns the reason of a NACK. A rejected version is not sent again, but the next
// one is. The rejection stands until the resource is replaced, even if Envoy accepts others of the type.
func (st *stream) answered(r *discoveryv3.DeltaDiscoveryRequest, ts *typeState) (reason string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	s := st.status[r.TypeUrl]
	for _, name := range append(ts.flight, "") {
		delete(ts.refused, name)
	}
	if r.ErrorDetail != nil {
		reason = shorten(r.ErrorDetail.Message)
		ts.refuse(reason)
		if !strings.Contains(s.nack, reason) { // a proxy may repeat itself
			st.server.cfg.Log.Error("proxy refused configuration", "proxy", st.proxy, "type", ShortType(r.TypeUrl),
				"generation", ts.inFlight, "reason", reason)
		}
	}
	s.nack = ts.reasons()
	if s.nack == "" && !ts.more {
		s.acked, s.ackedAt = ts.inFlight, st.server.cfg.Now()
	}
	st.status[r.TypeUrl] = s
	return reason
}

// refuse records which resources of a response were rejected; Envoy accepts the others. If the reason names none, all
// count as rejected.
func (ts *typeState) refuse(reason string) {
	named := func(name string) bool { return strings.Contains(reason, name) }
	if len(ts.flight) > maxSearched || !slices.ContainsFunc(ts.flight, named) {
		named = func(string) bool { return true }
	}
	for _, name := range ts.flight {
		_, asked := ts.subscribed[name]
		if named(name) && (asked || ts.wildcard) { // it no longer requests the others
			ts.refused[name] = reason
		}
	}
	if len(ts.flight) == 0 {
		ts.refused[""] = reason // it rejected a response that only removed resources
	}
}

// reasons returns the distinct reasons of current rejections.
func (ts *typeState) reasons() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(ts.refused)) {
		if r := ts.refused[name]; !slices.Contains(all, r) && len(all) < maxReasons {
			all = append(all, r)
		}
	}
	return strings.Join(all, "; ")
}

// Limits on the recorded rejections: names to search a reason for, reasons shown, bytes of one.
const (
	maxSearched = 1000
	maxReasons  = 5
	maxReason   = 4 << 10
)

func shorten(reason string) string {
	if reason == "" {
		return "refused without a reason"
	}
	if len(reason) > maxReason {
		reason = reason[:maxReason] + "…"
	}
	return strings.ToValidUTF8(reason, "")
}

// ShortType abbreviates a type URL: CDS, EDS, LDS, ECDS, RDS or SDS.
func ShortType(url string) string {
	switch url {
	case envoy.ClusterType:
		return "CDS"
	case envoy.EndpointType:
		return "EDS"
	case envoy.ListenerType:
		return "LDS"
	case envoy.ExtensionType:
		return "ECDS"
	case envoy.RouteType:
		return "RDS"
	case envoy.SecretType:
		return "SDS"
	}
	return url[strings.LastIndexByte(url, '.')+1:]
}

// Status returns the status of every known proxy, sorted by name.
func (s *Server) Status() []ProxyStatus {
	var out []ProxyStatus
	for _, name := range s.Known() {
		s.mu.Lock()
		p := s.proxies[name]
		var st *stream
		var left time.Time
		if p != nil {
			st, left = p.stream, p.left
		}
		s.mu.Unlock()
		status := st.report(name)
		if st == nil {
			status.Since = left
		}
		out = append(out, status)
	}
	return out
}

func (st *stream) report(name string) ProxyStatus {
	out := ProxyStatus{Name: name}
	if st == nil {
		return out
	}
	out.Connected, out.Since = true, st.since
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, typ := range envoy.Types {
		if s, ok := st.status[typ]; ok {
			out.Types = append(out.Types, TypeStatus{
				Type: ShortType(typ), Resources: s.resources, Sent: s.sent, Acked: s.acked, SentAt: s.sentAt,
				AckedAt: s.ackedAt, Nack: s.nack,
			})
		}
	}
	return out
}

// Resources returns what a proxy should have now, for display: its own resources and endpoint sets, in the order of
// envoy.Types.
func (s *Server) Resources(name string) []*envoy.Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.proxies[name]
	if p == nil || p.desired == nil {
		return nil
	}
	var out []*envoy.Resource
	for _, typ := range envoy.Types {
		byName := p.desired.byType[typ]
		if typ == envoy.EndpointType {
			byName = map[string]*envoy.Resource{}
			for set := range p.desired.sets {
				if r := s.endpoints[set]; r != nil {
					byName[set] = r
				}
			}
		}
		out = append(out, sorted(byName)...)
	}
	return out
}
