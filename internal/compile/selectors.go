package compile

import "slices"

// selectors are objects of one namespace that select instances by their labels, in the order in which they were added.
type selectors[T any] struct {
	all     []selecting[T]
	every   []int           // those that select everything: places in all
	byLabel map[label][]int // the others, each by one of the labels that it selects
}

type selecting[T any] struct {
	labels map[string]string
	object T
}

// add an object by the rarest of its labels.
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

// places returns where those stand in all that select an instance, in their order. The cost is in those with a label of
// the instance.
func (s *selectors[T]) places(i *instance) []int {
	out := slices.Clone(s.every)
	for k, v := range i.labels {
		out = append(out, s.byLabel[label{k, v}]...)
	}
	slices.Sort(out)
	return slices.DeleteFunc(out, func(n int) bool { return !i.selectedBy(s.all[n].labels) })
}

// of an instance are the objects that select it.
func (s *selectors[T]) of(i *instance) []T {
	var out []T
	for _, n := range s.places(i) {
		out = append(out, s.all[n].object)
	}
	return out
}
