package istioyaml

import (
	"fmt"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
)

// attribute is one key that a condition may name. A key ending in "[" takes a name in brackets.
type attribute struct {
	key   string
	check func(p policyRule, path, value string)
}

var attributes = []attribute{
	{"request.headers[", policyRule.headerValue},
	{"source.ip", policyRule.ipBlock},
	{"remote.ip", policyRule.ipBlock},
	{"source.namespace", policyRule.namespace},
	{"source.principal", policyRule.principal},
	{"source.serviceAccount", policyRule.serviceAccount},
	{"source.trustDomain", policyRule.trustDomain},
	{"destination.ip", policyRule.ipBlock},
	{"destination.port", policyRule.port},
	{"connection.sni", policyRule.sni},
}

// refused are keys that have a reason of their own not to be used.
var refused = []struct{ prefix, code, message, remedy string }{
	{"request.auth.", CodeUnsupported, "conditions on tokens (RequestAuthentication) are not supported yet", "remove the condition"},
	{"experimental.envoy.", CodeUnsupported, "conditions on Envoy's filter metadata are not supported", "remove the condition"},
	{"destination.labels", CodeInvalid, "the workload is chosen by selector, not by a condition", "use spec.selector.matchLabels"},
	{"destination.namespace", CodeInvalid, "a policy applies to its own namespace", "put the policy into that namespace"},
	{"destination.name", CodeInvalid, "the workload is chosen by selector, not by a condition", "use spec.selector.matchLabels"},
	{"destination.user", CodeInvalid, "this key does not exist any more", "use spec.selector.matchLabels"},
}

func (p policyRule) condition(path string, c *securityapi.Condition) {
	if len(c.GetValues())+len(c.GetNotValues()) == 0 {
		p.refuse(CodeRequired, path, "a condition needs values or notValues", "write one of them")
	}
	a, ok := p.attribute(path+".key", c.GetKey())
	if !ok {
		return
	}
	for name, list := range map[string][]string{"values": c.GetValues(), "notValues": c.GetNotValues()} {
		for i, v := range list {
			at := fmt.Sprintf("%s.%s[%d]", path, name, i)
			if v == "" {
				p.refuse(CodeInvalid, at, "an empty value matches nothing that exists", "write a value, or remove the item")
				continue
			}
			a.check(p, at, v)
		}
	}
}

func (p policyRule) attribute(path, key string) (attribute, bool) {
	if key == "" {
		p.refuse(CodeRequired, path, "a condition needs a key", "write one of: "+attributeNames())
		return attribute{}, false
	}
	for _, x := range refused {
		if strings.HasPrefix(key, x.prefix) {
			p.refuse(x.code, path, fmt.Sprintf("%s: %s", clip(key), x.message), x.remedy)
			return attribute{}, false
		}
	}
	for _, a := range attributes {
		name, bracket := strings.CutSuffix(a.key, "[")
		if key == a.key && !bracket {
			return a, true
		}
		if bracket && strings.HasPrefix(key, a.key) && strings.HasSuffix(key, "]") && len(key) > len(a.key)+1 {
			header := strings.TrimPrefix(key[len(a.key):len(key)-1], ":") // :path and the like are names of Envoy's
			return a, p.fits(path, header, maxHeader, func(r rune) bool { return inToken(r) && r != '*' },
				"write a header's name, such as request.headers[x-role]")
		}
		if bracket && strings.HasPrefix(key, name) {
			p.refuse(CodeInvalid, path, fmt.Sprintf("%q lacks a name in brackets", clip(key)), "write it as "+a.key+"name]")
			return attribute{}, false
		}
	}
	p.refuse(CodeEnum, path, fmt.Sprintf("%q is not an attribute", clip(key)), "use one of: "+attributeNames())
	return attribute{}, false
}

func attributeNames() string {
	names := make([]string, len(attributes))
	for i, a := range attributes {
		names[i] = a.key
		if strings.HasSuffix(a.key, "[") {
			names[i] += "<name>]"
		}
	}
	return strings.Join(names, ", ")
}
