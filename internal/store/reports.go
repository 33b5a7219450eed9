package store

import (
	"maps"
	"reflect"
	"slices"

	"isthmus.dev/isthmus/internal/snapshot"
)

// SetReport replaces the faults reported about a node. They are forgotten with the node and when this process ends;
// agents report again when they reconnect.
func (s *Store) SetReport(r snapshot.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.reports[r.Node]
	nothing := len(r.Refused)+len(r.Troubles)+len(r.Outside) == 0
	switch {
	case nothing && !known, !nothing && reflect.DeepEqual(before, r):
		return
	case nothing:
		s.dropReport(r.Node)
		return
	}
	s.reports[r.Node] = r
	s.said = nil
	s.mark()
}

// Report returns the last report about a node.
func (s *Store) Report(node string) snapshot.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reports[node]
}

// dropReport must be called with mu held.
func (s *Store) dropReport(node string) {
	if _, known := s.reports[node]; known {
		delete(s.reports, node)
		s.said = nil
		s.mark()
	}
}

// reported returns all reports, sorted by node. It returns the same slice until a report changes. The caller holds mu.
func (s *Store) reported() []snapshot.Report {
	if s.said == nil && len(s.reports) > 0 {
		for _, node := range slices.Sorted(maps.Keys(s.reports)) {
			s.said = append(s.said, s.reports[node])
		}
	}
	return s.said
}

// SetContained replaces the list of contained proxies, sorted by name.
func (s *Store) SetContained(all []snapshot.Contained) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(all)+len(s.contained) > 0 && !reflect.DeepEqual(s.contained, all) {
		s.contained = all
		s.mark()
	}
}
