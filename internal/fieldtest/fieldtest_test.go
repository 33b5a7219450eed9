package fieldtest

import (
	"math/big"
	"reflect"
	"slices"
	"testing"
)

type inner struct {
	Number int
	Names  map[string][]string
}

type outer struct {
	Text  string
	On    bool
	Inner *inner
	List  []inner
	Other uint8
}

// Every place where two values can differ is tried once.
func TestPlaces(t *testing.T) {
	var tried []outer
	wrong := Unseen(func(_, b outer) bool {
		tried = append(tried, b)
		return len(tried) == 1
	}, nil)
	if len(wrong) > 0 {
		t.Errorf("a comparison that sees everything: %q", wrong)
	}
	if len(tried) != 13 { // the first is no other; Inner has 4 places, List 5
		t.Errorf("tried %d values: %+v", len(tried), tried)
	}
	for name, differs := range map[string]func(outer) bool{
		"Text": func(o outer) bool { return o.Text == "b" }, "On": func(o outer) bool { return !o.On },
		"Inner.Number": func(o outer) bool { return o.Inner.Number == 2 },
		"Inner.Names":  func(o outer) bool { return o.Inner.Names == nil },
		"Inner.Names, the list": func(o outer) bool {
			list, ok := o.Inner.Names["a"]
			return ok && len(list) == 0
		},
		"Inner.Names, an element": func(o outer) bool { return slices.Equal(o.Inner.Names["a"], []string{"b"}) },
		"List":                    func(o outer) bool { return len(o.List) == 0 },
		"List, an element":        func(o outer) bool { return len(o.List) == 1 && o.List[0].Number == 2 },
		"Other":                   func(o outer) bool { return o.Other == 2 },
	} {
		if n := len(slices.DeleteFunc(slices.Clone(tried), func(o outer) bool { return !differs(o) })); n != 1 {
			t.Errorf("%s differs in %d of the values, want 1", name, n)
		}
	}
}

// What a comparison forgets is said, and so is an exception that is none.
func TestUnseen(t *testing.T) {
	but := func(forget func(*outer)) func(a, b outer) bool {
		return func(a, b outer) bool {
			forget(&a)
			forget(&b)
			return reflect.DeepEqual(a, b)
		}
	}
	whole, number, other := but(func(*outer) {}), but(func(o *outer) { o.Inner.Number = 0 }),
		but(func(o *outer) { o.Other = 0 })
	for _, c := range []struct {
		equal  func(a, b outer) bool
		except map[string]string
		want   []string
	}{
		{whole, nil, nil},
		{other, map[string]string{"outer.Other": "a reason"}, nil},
		{other, nil, []string{"a difference in outer.Other is not seen: compare it, or name it among the exceptions " +
			"with the reason"}},
		{number, map[string]string{"inner.Names": "a reason"}, []string{
			"a difference in outer.Inner > inner.Number is not seen: compare it, or name it among the exceptions with " +
				"the reason",
			"inner.Names is compared, or is no field: remove it from the exceptions",
		}},
		{func(a, b outer) bool { return false }, nil, []string{"two values that are filled alike compare as different"}},
	} {
		if got := Unseen(c.equal, c.except); !slices.Equal(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	numbers := SamplesOf(big.NewInt(1), big.NewInt(2))
	if got := Unseen(func(a, b []*big.Int) bool { return len(a) == len(b) }, nil, numbers); len(got) != 1 {
		t.Errorf("a sample that differs: %q", got)
	}
}
