package envoy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"isthmus.dev/isthmus/internal/model"
)

// destinationsInWords and clustersInWords say where a route leads: to a cluster, named without the workload, or to
// shares of several.
func destinationsInWords(r *model.Route) string {
	var parts []string
	serves := false
	for _, d := range r.To {
		name := "nobody"
		if d.Groups != nil {
			name = d.Service.Host + ":80"
		}
		if d.Set.Subset != "" {
			name += "{" + d.Set.Subset + "}"
		}
		if d.Weight > 0 || len(r.To) == 1 {
			parts, serves = append(parts, fmt.Sprintf("%d × %s", d.Weight, name)), serves || d.Groups != nil
		}
	}
	switch {
	case !serves:
		return "503"
	case len(parts) == 1:
		_, name, _ := strings.Cut(parts[0], " × ")
		return name
	}
	return strings.Join(parts, ", ")
}

func clustersInWords(r *routev3.Route) string {
	if s := r.GetDirectResponse(); s != nil {
		return fmt.Sprint(s.Status)
	}
	var parts []string
	for _, c := range r.GetRoute().GetWeightedClusters().GetClusters() {
		parts = append(parts, fmt.Sprintf("%d × %s", c.Weight.GetValue(), short(c.Name)))
	}
	return short(r.GetRoute().GetCluster()) + strings.Join(parts, ", ")
}

// clustersOf lists the clusters that a route names.
func clustersOf(r *routev3.Route) (out []string) {
	a := r.GetRoute()
	if a.GetCluster() != "" {
		out = append(out, a.GetCluster())
	}
	for _, c := range a.GetWeightedClusters().GetClusters() {
		out = append(out, c.Name)
	}
	for _, m := range a.GetRequestMirrorPolicies() {
		out = append(out, m.Cluster)
	}
	return each(out, func(name string) string { return strings.TrimPrefix(name, "shop/till>") })
}

func short(cluster string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(cluster, "shop/till>"), "@")
	return name
}

// inWords says what a route matches, where it leads, what it changes and how it is retried.
func inWords(r *routev3.Route) string {
	var b strings.Builder
	switch p := r.Match.PathSpecifier.(type) {
	case *routev3.RouteMatch_Prefix:
		b.WriteString(p.Prefix + "*")
	case *routev3.RouteMatch_Path:
		b.WriteString(p.Path)
	case *routev3.RouteMatch_SafeRegex:
		b.WriteString("~" + p.SafeRegex.Regex)
	}
	if r.Match.Grpc != nil {
		b.WriteString(" gRPC")
	}
	for _, h := range r.Match.Headers {
		b.WriteString(map[bool]string{false: " ", true: " !"}[h.InvertMatch] + h.Name)
	}
	for _, q := range r.Match.QueryParameters {
		b.WriteString(" ?" + q.Name)
	}
	b.WriteString(" → ")
	if d := r.GetDirectResponse(); d != nil {
		fmt.Fprintf(&b, "%d %s", d.Status, d.Body.GetInlineString())
	}
	if d := r.GetRedirect(); d != nil {
		fmt.Fprintf(&b, "%s %s://%s", d.ResponseCode, d.GetSchemeRedirect(), d.HostRedirect)
		if d.PortRedirect != 0 {
			fmt.Fprintf(&b, ":%d", d.PortRedirect)
		}
		b.WriteString(d.GetPathRedirect())
	}
	a := r.GetRoute()
	if a == nil {
		return b.String()
	}
	b.WriteString(strings.ReplaceAll(clustersInWords(r), "reviews:80", ""))
	if a.Timeout.AsDuration() > 0 {
		fmt.Fprintf(&b, " in %s", a.Timeout.AsDuration())
	}
	if a.PrefixRewrite != "" {
		b.WriteString(" as " + a.PrefixRewrite)
	}
	for _, h := range r.RequestHeadersToAdd {
		fmt.Fprintf(&b, " %s%s:%s", []string{"+", "", "="}[h.AppendAction], h.Header.Key, h.Header.Value)
	}
	for _, h := range r.RequestHeadersToRemove {
		b.WriteString(" -" + h)
	}
	for _, h := range r.ResponseHeadersToRemove {
		b.WriteString(" ←-" + h)
	}
	for _, m := range a.RequestMirrorPolicies {
		fmt.Fprintf(&b, " copied %d to %s", m.RuntimeFraction.DefaultValue.Numerator,
			strings.ReplaceAll(short(m.Cluster), "reviews:80", ""))
	}
	if p := a.RetryPolicy; p != nil {
		fmt.Fprintf(&b, ", %d retries", p.NumRetries.GetValue())
		if p.PerTryTimeout != nil {
			fmt.Fprintf(&b, " of %s", p.PerTryTimeout.AsDuration())
		}
		if slices.Contains(strings.Split(p.RetryOn, ","), "reset") {
			b.WriteString(" with reset")
		}
		if !strings.Contains(p.RetryOn, "retriable-headers") {
			b.WriteString(" of programs")
		}
	}
	return b.String()
}

func routesIn(t *testing.T, res *Resources) []*routev3.Route {
	t.Helper()
	if list := res.ByType[RouteType]; len(list) != 1 || list[0].Name != "shop/till>reviews:80" {
		t.Fatalf("%d route configurations", len(list))
	}
	return read[*routev3.RouteConfiguration](t, res.ByType[RouteType][0]).VirtualHosts[0].Routes
}

// serversOf lists the identities that a cluster accepts.
func serversOf(t *testing.T, c *clusterv3.Cluster) (out []string) {
	t.Helper()
	tls := &tlsv3.UpstreamTlsContext{}
	if err := c.TransportSocket.GetTypedConfig().UnmarshalTo(tls); err != nil {
		t.Fatal(err)
	}
	checks := tls.CommonTlsContext.GetCombinedValidationContext().DefaultValidationContext
	for _, s := range checks.MatchTypedSubjectAltNames {
		out = append(out, s.Matcher.GetExact())
	}
	return out
}

func read[M proto.Message](t *testing.T, r *Resource) M {
	t.Helper()
	var zero M
	m := zero.ProtoReflect().New().Interface().(M)
	if err := proto.Unmarshal(r.Body, m); err != nil {
		t.Fatal(err)
	}
	return m
}
