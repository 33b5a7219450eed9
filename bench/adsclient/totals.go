package adsclient

import (
	"maps"
	"time"
)

// Totals are counts by type URL since the client was made.
type Totals map[string]Count

// Count is what arrived of one type.
type Count struct {
	Messages      int
	Bytes         int // whole messages
	Resources     int
	ResourceBytes int // packed resources alone, without their names and versions
	Removed       int
	Last          time.Time // of the last message
}

func (t Totals) add(m Message) {
	n := t[m.Type]
	n.Messages++
	n.Bytes += m.Bytes
	n.Removed += len(m.RemovedResources)
	n.Last = m.At
	for _, r := range m.Resources {
		if r.Resource != nil {
			n.Resources++
			n.ResourceBytes += len(r.Resource.Value)
		}
	}
	t[m.Type] = n
}

// Sum is the count over all types.
func (t Totals) Sum() Count {
	var s Count
	for _, n := range t {
		s.Messages += n.Messages
		s.Bytes += n.Bytes
		s.Resources += n.Resources
		s.ResourceBytes += n.ResourceBytes
		s.Removed += n.Removed
		if n.Last.After(s.Last) {
			s.Last = n.Last
		}
	}
	return s
}

// Since is what arrived after an earlier reading.
func (t Totals) Since(earlier Totals) Totals {
	d := Totals{}
	for typ, n := range t {
		e := earlier[typ]
		n.Messages -= e.Messages
		n.Bytes -= e.Bytes
		n.Resources -= e.Resources
		n.ResourceBytes -= e.ResourceBytes
		n.Removed -= e.Removed
		if n.Messages > 0 {
			d[typ] = n
		}
	}
	return d
}

// Totals reads the counts so far.
func (c *Client) Totals() Totals {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.total)
}

// Holds is how many resources of a type the client has now.
func (c *Client) Holds(typeURL string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.types[typeURL]; s != nil {
		return len(s.versions)
	}
	return 0
}

// Pending is how many names the client asked for and has not got.
func (c *Client) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, s := range c.types {
		for asked := range s.names {
			if _, got := s.versions[asked]; !got {
				n++
			}
		}
	}
	return n
}
