package xds

import (
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/envoy"
)

// Holder is a proxy that should have a resource.
type Holder struct {
	Proxy     string
	Connected bool
	// Acked means that the proxy acknowledged the current version of the resource, or does not need it.
	Acked bool
	Nack  string // what it rejects of the resource's type
}

// Holders returns the proxies that should have a resource, sorted by name.
func (s *Server) Holders(typ, name string) []Holder {
	type held struct {
		proxy      string
		generation uint64
		stream     *stream
	}
	var all []held
	s.mu.Lock()
	for proxy, p := range s.proxies {
		if p.desired != nil && p.desired.byType[typ][name] != nil {
			all = append(all, held{proxy, p.desired.generation, p.stream})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b held) int { return strings.Compare(a.proxy, b.proxy) })
	out := make([]Holder, len(all))
	for i, h := range all {
		out[i] = Holder{Proxy: h.proxy, Connected: h.stream != nil}
		if h.stream != nil {
			out[i].Acked, out[i].Nack = h.stream.acked(typ, h.generation)
		}
	}
	return out
}

// Settled reports whether a proxy is connected and has acknowledged everything that it should have.
func (s *Server) Settled(proxy string) bool {
	s.mu.Lock()
	p := s.proxies[proxy]
	if p == nil || p.desired == nil || p.stream == nil {
		s.mu.Unlock()
		return false
	}
	st, generation := p.stream, p.desired.generation
	s.mu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, typ := range []string{envoy.ClusterType, envoy.ListenerType} {
		if _, asked := st.status[typ]; !asked {
			return false
		}
	}
	for _, status := range st.status {
		if status.acked != generation || status.nack != "" {
			return false
		}
	}
	return true
}

// acked reports whether the client acknowledged everything of a type up to a generation. A client that has all its
// listeners and never requested the type does not need it.
func (st *stream) acked(typ string, generation uint64) (bool, string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	status, asked := st.status[typ]
	if !asked {
		listeners := st.status[envoy.ListenerType]
		return listeners.acked == generation && generation > 0, ""
	}
	return status.acked == generation && status.nack == "", status.nack
}
