package compile

import "slices"

// selectors are objects of one namespace that select instances by label, in the order in which they were added.
type selectors[T any] struct {
	all     []selecting[T]
	every   []int           // those that select everything: indices into all
	byLabel map[label][]int // the others, by one label of each selector
}

type selecting[T any] struct {
	labels map[string]string
	object T
}

// add indexes an object by the rarest of its labels.
func (s *selectors[T]) add(labels map[string]string, object T) {
	n := len(s.all)
	s.all = append(s.all, selecting[T]{labels, object})
	if len(labels) == 0 {
		s.every = append(s.every, n)
		return
	}
	if s.byLabel == nil {
		s.byLabel = map[label][]int{}
	}
	var rarest label
	for k, v := range labels {
		if l := (label{k, v}); rarest == (label{}) || len(s.byLabel[l]) < len(s.byLabel[rarest]) {
			rarest = l
		}
	}
	s.byLabel[rarest] = append(s.byLabel[rarest], n)
}

// places returns the indices of the objects that select an instance, in order. The cost depends on the objects that
// have one of the instance's labels.
func (s *selectors[T]) places(i *instance) []int {
	out := slices.Clone(s.every)
	for k, v := range i.labels {
		out = append(out, s.byLabel[label{k, v}]...)
	}
	slices.Sort(out)
	return slices.DeleteFunc(out, func(n int) bool { return !i.selectedBy(s.all[n].labels) })
}

// of returns the objects that select an instance.
func (s *selectors[T]) of(i *instance) []T {
	var out []T
	for _, n := range s.places(i) {
		out = append(out, s.all[n].object)
	}
	return out
}
