// Package fieldtest checks in tests that hand-written comparisons cover every field of the types that they compare. A
// field missing from a comparison is a change that reaches no proxy.
package fieldtest

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Samples are two different values of each type that cannot be filled field by field. Those of netip, time and SPIFFE
// are known.
type Samples map[reflect.Type][2]any

// SamplesOf returns the samples of one type.
func SamplesOf[T any](a, b T) Samples { return Samples{reflect.TypeFor[T](): {a, b}} }

// known are samples of the types that most structs have.
func known() Samples {
	one, two := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:1")
	cards, bank := spiffeid.RequireTrustDomainFromString("cards.example"),
		spiffeid.RequireTrustDomainFromString("bank.example")
	out := Samples{}
	for _, s := range []Samples{
		SamplesOf(one, two), SamplesOf(one.Addr(), two.Addr()),
		SamplesOf(netip.PrefixFrom(one.Addr(), 32), netip.PrefixFrom(two.Addr(), 32)),
		SamplesOf(time.Unix(1, 0), time.Unix(2, 0)), SamplesOf(cards, bank),
		SamplesOf(spiffeid.RequireFromPath(cards, "/till"), spiffeid.RequireFromPath(cards, "/desk")),
	} {
		maps.Copy(out, s)
	}
	return out
}

// Unseen returns what is wrong with a comparison: each field beneath T in which two values may differ without equal
// telling them apart. Fields in except, as "Type.Field" with the reason, are those that equal ignores, with everything
// beneath them; one that it does not ignore is wrong too. Nil means that nothing is wrong. It panics for a type that
// cannot be filled and has no samples.
func Unseen[T any](equal func(a, b T) bool, except map[string]string, samples ...Samples) []string {
	all := known()
	for _, s := range samples {
		maps.Copy(all, s)
	}
	filled := func() reflect.Value {
		v := reflect.New(reflect.TypeFor[T]()).Elem()
		all.fill(v, v.Type().String())
		return v
	}
	same := func(a, b reflect.Value) bool { return equal(a.Interface().(T), b.Interface().(T)) }
	if !same(filled(), filled()) {
		return []string{"two values that are filled alike compare as different"}
	}
	var wrong []string
	ignored := map[string]bool{} // fields of except
	for n := 0; ; n++ {
		b := filled()
		p := places{Samples: all, except: except, left: n}
		p.visit(b, nil)
		if !p.changed {
			break
		}
		field := p.path[max(0, len(p.path)-1):]
		switch is := same(filled(), b); {
		case !is:
		case len(field) > 0 && except[field[0]] != "":
			ignored[field[0]] = true
		default:
			wrong = append(wrong, "a difference in "+strings.Join(p.path, " > ")+
				" is not seen: compare it, or name it among the exceptions with the reason")
		}
	}
	for _, field := range slices.Sorted(maps.Keys(except)) {
		if !ignored[field] {
			wrong = append(wrong, field+" is compared, or is no field: remove it from the exceptions")
		}
	}
	return slices.Compact(wrong)
}

// fill gives every field beneath v a value, every list and map one entry.
func (s Samples) fill(v reflect.Value, path string) {
	if sample, ok := s[v.Type()]; ok {
		v.Set(reflect.ValueOf(sample[0]))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		s.fill(v.Elem(), path)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		s.fill(v.Index(0), path+"[]")
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		s.fill(key, path+" key")
		s.fill(value, path+"[]")
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if strings.Count(path, "."+field.Name+".") > 2 {
				continue // it contains itself
			}
			if !v.Field(i).CanSet() {
				panic(fmt.Sprintf("%s has a field that cannot be set: give samples of %s", path, v.Type()))
			}
			s.fill(v.Field(i), path+"."+field.Name+".")
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("a")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	default:
		panic(fmt.Sprintf("%s: give samples of %s", path, v.Type()))
	}
}

// places counts the places beneath a value where it can differ from one that is filled alike, and changes one of them.
type places struct {
	Samples
	except  map[string]string // fields that count as one place
	left    int               // places to pass before the one to change
	changed bool
	path    []string // of the one that was changed, as "Type.Field"
}

// here reports whether this place is the one to change.
func (p *places) here(path []string) bool {
	if p.changed {
		return false
	}
	if p.left--; p.left >= 0 {
		return false
	}
	p.changed, p.path = true, slices.Clone(path)
	return true
}

func (p *places) visit(v reflect.Value, path []string) {
	if sample, ok := p.Samples[v.Type()]; ok {
		if p.here(path) {
			v.Set(reflect.ValueOf(sample[1]))
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			p.visit(v.Elem(), path)
		}
	case reflect.Slice:
		if v.Len() == 0 {
			return
		}
		p.visit(v.Index(0), path)
		if p.here(path) {
			v.SetZero()
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			changed := reflect.New(value.Type()).Elem()
			changed.Set(value)
			p.visit(changed, path)
			v.SetMapIndex(key, changed)
		}
		if p.here(path) {
			v.SetZero()
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Name() + "." + v.Type().Field(i).Name
			if _, ok := p.except[field]; !ok {
				p.visit(v.Field(i), append(path, field))
			} else if p.here(append(path, field)) {
				(&places{Samples: p.Samples}).visit(v.Field(i), nil)
			}
		}
	case reflect.Bool:
		if p.here(path) {
			v.SetBool(false)
		}
	case reflect.String:
		if p.here(path) {
			v.SetString("b")
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if p.here(path) {
			v.SetInt(2)
		}
	default:
		if p.here(path) {
			v.SetUint(2)
		}
	}
}
