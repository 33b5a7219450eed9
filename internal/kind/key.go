package kind

import (
	"cmp"
	"strings"
)

// Key identifies one object, or another thing that findings are about: "workload default/cart", "node a".
type Key struct{ Kind, Namespace, Name string }

// Workload returns the key of a workload that a node registered.
func Workload(namespace, name string) Key {
	return Key{Kind: "workload", Namespace: namespace, Name: name}
}

// Node returns the key of a node's agent.
func Node(name string) Key { return Key{Kind: "node", Name: name} }

// Gateway returns the key of a gateway's agent.
func Gateway(name string) Key { return Key{Kind: "gateway", Name: name} }

// Proxy returns the key of an Envoy.
func Proxy(name string) Key { return Key{Kind: "proxy", Name: name} }

// String returns "Kind namespace/name", "Kind name" or "Kind". Messages name objects in no other way.
func (k Key) String() string {
	switch {
	case k.Namespace != "":
		return k.Kind + " " + k.Namespace + "/" + k.Name
	case k.Name != "":
		return k.Kind + " " + k.Name
	}
	return k.Kind
}

// Normal drops the parts of a key that identify nothing: a namespace without a name, a name without a kind.
func (k Key) Normal() Key {
	switch {
	case k.Kind == "":
		return Key{}
	case k.Name == "":
		return Key{Kind: k.Kind}
	}
	return k
}

// Compare orders keys by kind, namespace and name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Kind, o.Kind), cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Name, o.Name))
}

// MarshalText returns the key as String does.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText parses the result of MarshalText.
func (k *Key) UnmarshalText(text []byte) error {
	*k = Key{}
	var named bool
	if k.Kind, k.Name, named = strings.Cut(string(text), " "); named {
		if ns, name, namespaced := strings.Cut(k.Name, "/"); namespaced {
			k.Namespace, k.Name = ns, name
		}
	}
	return nil
}
