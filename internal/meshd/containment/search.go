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

// search finds what one proxy cannot live with.
type search struct {
	proxy string
	snap  *snapshot.Snapshot
	// compiled is of the snapshot: what is tried differs from it in a few objects.
	compiled *compile.Compiled
	build    func(*view.View, *snapshot.Config) *envoy.Resources
	try      func(context.Context, string, []*envoy.Resource) error
	lived    *snapshot.Config // the last configuration that it lived with; nil when none is known
	// closed are the objects that are closed there already, suspects those that others could not live with.
	closed   []snapshot.Key
	suspects func(*snapshot.Object) bool

	tried map[string]error // by the fingerprint of what was tried
	words string           // Envoy's, when it first refused
}

// outcome of a search.
type outcome struct {
	culprits []*snapshot.Object
	words    string // Envoy's
	whole    bool   // the search was cut short: all that may be a culprit is among them
	lives    string // the fingerprint of the configuration as it is, when Envoy lives with it
}

// run looks for the culprits among what has changed, and, when that is not enough, among all objects. A fault of ours
// on the way is an error like any other.
func (s *search) run(ctx context.Context) (out outcome, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("search for what %s cannot live with: %v", s.proxy, fault)
		}
	}()
	s.tried = map[string]error{}
	lives := func(closed []snapshot.Key) (bool, error) { return s.lives(ctx, closed) }
	if ok, err := lives(nil); err != nil || ok {
		return outcome{lives: s.fingerprint()}, err
	}
	candidates := s.candidates(contain.Changed(s.lived, s.snap.Config))
	if known := slices.DeleteFunc(slices.Clone(candidates),
		func(o *snapshot.Object) bool { return !s.suspects(o) }); len(known) > 0 {
		if ok, err := lives(contain.Keys(known)); err != nil {
			return outcome{}, err
		} else if ok {
			candidates = known
		}
	}
	keys, whole, err := contain.Culprits(contain.Keys(candidates), lives)
	if errors.Is(err, contain.ErrNoCulprit) && s.lived != nil {
		candidates = s.candidates(contain.Objects(s.snap.Config))
		keys, whole, err = contain.Culprits(contain.Keys(candidates), lives)
	}
	if err != nil {
		return outcome{words: s.words}, err
	}
	culprits := slices.DeleteFunc(candidates, func(o *snapshot.Object) bool { return !slices.Contains(keys, o.Key) })
	return outcome{culprits: culprits, words: s.words, whole: whole}, nil
}

// candidates are those objects that are not closed already, whom to blame last.
func (s *search) candidates(objects []*snapshot.Object) []*snapshot.Object {
	out := slices.DeleteFunc(objects, func(o *snapshot.Object) bool { return slices.Contains(s.closed, o.Key) })
	contain.SortByBlame(s.snap.Config, out)
	return out
}

// lives says whether Envoy could live with the configuration when some objects more are closed.
func (s *search) lives(ctx context.Context, closed []snapshot.Key) (bool, error) {
	res, endpoints := s.resources(closed)
	if res == nil {
		return true, nil // nothing is said to the proxy
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
		if s.words == "" {
			s.words = no.Error()
		}
		return false, nil
	}
	return false, err
}

// resources are what the proxy would be told, and the endpoint sets that it may ask for.
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

// fingerprint of what the proxy would be told as things are.
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

// fingerprint tells configurations of one proxy apart.
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
