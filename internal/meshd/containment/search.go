package containment

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strconv"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/contain"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/view"
)

// search finds the objects that one proxy cannot accept.
type search struct {
	proxy string
	snap  *snapshot.Snapshot
	// compiled is the snapshot's mesh. Trials differ from it in a few objects.
	compiled *compile.Compiled
	build    func(*view.View, *snapshot.Config) *envoy.Resources
	try      func(context.Context, string, []*envoy.Resource) error
	lastGood *snapshot.Config // its last good configuration; nil if unknown
	// closed are the objects already closed for this proxy, suspects those that others rejected.
	closed   []snapshot.Key
	suspects func(*snapshot.Object) bool

	tried        map[string]error // results by fingerprint of the tried configuration
	envoyMessage string           // Envoy's message when it first rejected something
}

// outcome is the result of a search.
type outcome struct {
	culprits     []*snapshot.Object
	envoyMessage string // Envoy's message
	cutShort     bool   // the search was cut short: culprits holds all that may be one
	acceptedAs   string // fingerprint of the unchanged configuration, if Envoy accepts it
}

// run searches the culprits among the changed objects and, if that is not enough, among all. A panic on the way is
// returned as an error.
func (s *search) run(ctx context.Context) (out outcome, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("search for what %s cannot run with: %v", s.proxy, fault)
		}
	}()
	s.tried = map[string]error{}
	lives := func(closed []snapshot.Key) (bool, error) { return s.accepts(ctx, closed) }
	if ok, err := lives(nil); err != nil || ok {
		return outcome{acceptedAs: s.fingerprint()}, err
	}
	candidates := s.candidates(contain.Changed(s.lastGood, s.snap.Config))
	if known := slices.DeleteFunc(slices.Clone(candidates),
		func(o *snapshot.Object) bool { return !s.suspects(o) }); len(known) > 0 {
		if ok, err := lives(contain.Keys(known)); err != nil {
			return outcome{}, err
		} else if ok {
			candidates = known
		}
	}
	keys, whole, err := contain.Culprits(contain.Keys(candidates), lives)
	if errors.Is(err, contain.ErrNoCulprit) && s.lastGood != nil {
		candidates = s.candidates(contain.Objects(s.snap.Config))
		keys, whole, err = contain.Culprits(contain.Keys(candidates), lives)
	}
	if err != nil {
		return outcome{envoyMessage: s.envoyMessage}, err
	}
	culprits := slices.DeleteFunc(candidates, func(o *snapshot.Object) bool { return !slices.Contains(keys, o.Key) })
	return outcome{culprits: culprits, envoyMessage: s.envoyMessage, cutShort: whole}, nil
}

// candidates returns the objects that are not closed yet, the most likely culprit last.
func (s *search) candidates(objects []*snapshot.Object) []*snapshot.Object {
	out := slices.DeleteFunc(objects, func(o *snapshot.Object) bool { return slices.Contains(s.closed, o.Key) })
	contain.SortByBlame(s.snap.Config, out)
	return out
}

// accepts reports whether Envoy accepts the configuration with some more objects closed.
func (s *search) accepts(ctx context.Context, closed []snapshot.Key) (bool, error) {
	res, endpoints := s.resources(closed)
	if res == nil {
		return true, nil // the proxy gets no configuration
	}
	id := fingerprint(res) + fingerprint(&envoy.Resources{
		ByType: map[string][]*envoy.Resource{envoy.EndpointType: endpoints},
	})
	err, known := s.tried[id]
	if !known {
		if err = ctx.Err(); err != nil {
			return false, context.Cause(ctx)
		}
		err = s.try(ctx, s.proxy, flat(res, endpoints))
		s.tried[id] = err
	}
	var no contain.Refusal
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &no):
		if s.envoyMessage == "" {
			s.envoyMessage = no.Error()
		}
		return false, nil
	}
	return false, err
}

// resources returns what the proxy would be sent, and the endpoint sets that it may request.
func (s *search) resources(closed []snapshot.Key) (*envoy.Resources, []*envoy.Resource) {
	snap := *s.snap
	snap.Config = contain.Close(snap.Config, slices.Concat(s.closed, closed), Reason)
	mesh := compile.Next(s.compiled, &snap).Mesh
	if mesh == nil {
		return nil, nil
	}
	v := view.For(mesh, s.proxy)
	if v == nil {
		return nil, nil
	}
	res := s.build(v, snap.Config)
	return res, endpointsOf(v, res, mesh)
}

func endpointsOf(v *view.View, res *envoy.Resources, mesh *model.Mesh) []*envoy.Resource {
	out := make([]*envoy.Resource, len(res.Sets))
	for i, set := range res.Sets {
		out[i] = envoy.EndpointsFor(v, set, mesh.Endpoints)
	}
	return out
}

// fingerprint returns the fingerprint of the current configuration.
func (s *search) fingerprint() string {
	res, _ := s.resources(nil)
	return fingerprint(res)
}

func flat(res *envoy.Resources, endpoints []*envoy.Resource) []*envoy.Resource {
	out := slices.Clone(endpoints)
	for _, typ := range envoy.Types {
		out = append(out, res.ByType[typ]...)
	}
	return out
}

// fingerprint identifies a configuration of one proxy.
func fingerprint(res *envoy.Resources) string {
	if res == nil {
		return ""
	}
	h := fnv.New128a()
	for _, typ := range envoy.Types {
		for _, r := range res.ByType[typ] {
			_, _ = io.WriteString(h, strconv.Itoa(len(r.Name))+r.Name+r.Version)
		}
	}
	return string(h.Sum(nil))
}
