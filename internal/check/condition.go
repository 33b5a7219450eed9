package check

import (
	"fmt"
	"strings"

	securityapi "istio.io/api/security/v1beta1"

	"isthmus.dev/isthmus/internal/finding"
)

// attribute is a key that a condition may use. A key that ends in "[" is followed by a name and "]".
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

// refused lists keys that are refused for a specific reason.
var refused = []struct {
	prefix          string
	code            finding.Code
	message, remedy string
}{
	{
		"request.auth.", finding.Unsupported, "conditions on tokens (RequestAuthentication) are not supported yet",
		"remove the condition",
	},
	{
		"experimental.envoy.", finding.Unsupported, "conditions on Envoy's filter metadata are not supported",
		"remove the condition",
	},
	{
		"destination.labels", finding.Invalid, "the workload is chosen by selector, not by a condition",
		"use spec.selector.matchLabels",
	},
	{
		"destination.namespace", finding.Invalid, "a policy applies to its own namespace",
		"put the policy into that namespace",
	},
	{
		"destination.name", finding.Invalid, "the workload is chosen by selector, not by a condition",
		"use spec.selector.matchLabels",
	},
	{"destination.user", finding.Invalid, "this key does not exist any more", "use spec.selector.matchLabels"},
}

func (p policyRule) condition(path string, c *securityapi.Condition) {
	if len(c.GetValues())+len(c.GetNotValues()) == 0 {
		p.find(finding.Required, path, "a condition needs values or notValues", "write one of them")
	}
	a, ok := p.attribute(path+".key", c.GetKey())
	if !ok {
		return
	}
	p.each(path+".values", c.GetValues(), a.check)
	p.each(path+".notValues", c.GetNotValues(), a.check)
}

func (p policyRule) attribute(path, key string) (attribute, bool) {
	if key == "" {
		p.find(finding.Required, path, "a condition needs a key", "write one of: "+attributeNames())
		return attribute{}, false
	}
	for _, x := range refused {
		if strings.HasPrefix(key, x.prefix) {
			p.find(x.code, path, fmt.Sprintf("%s: %s", finding.Clip(key), x.message), x.remedy)
			return attribute{}, false
		}
	}
	for _, a := range attributes {
		name, bracket := strings.CutSuffix(a.key, "[")
		if key == a.key && !bracket {
			return a, true
		}
		if bracket && strings.HasPrefix(key, a.key) && strings.HasSuffix(key, "]") && len(key) > len(a.key)+1 {
			header := strings.TrimPrefix(key[len(a.key):len(key)-1], ":") // Envoy reserves names such as :path
			return a, p.fits(path, header, maxHeader, func(r rune) bool { return inToken(r) && r != '*' },
				"write a header's name, such as request.headers[x-role]")
		}
		if bracket && strings.HasPrefix(key, name) {
			p.find(finding.Invalid, path,
				fmt.Sprintf("%q lacks a name in brackets", finding.Clip(key)),
				"write it as "+a.key+"name]")
			return attribute{}, false
		}
	}
	p.find(finding.UnknownValue, path,
		fmt.Sprintf("%q is not an attribute", finding.Clip(key)),
		"use one of: "+attributeNames())
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
