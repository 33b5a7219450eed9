package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/wellknown"
)

// meshALPN marks mesh mTLS, so that a PERMISSIVE port can tell it from an application's own TLS.
const meshALPN = "isthmus"

// serverALPN leaves meshALPN out: a mesh client then agrees on no protocol, and Envoy tells HTTP/2 from HTTP/1.1 by the
// first bytes, as the application wrote them. An agreed meshALPN would mean HTTP/1.1 to it.
var serverALPN = []string{"h2", "http/1.1"}

// tls13 is the floor and, as Envoy wants the ceiling named beside it, the ceiling.
func tls13() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
	}
}

// fromAgent asks the agent for a certificate; the key never leaves the host.
func fromAgent(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: agentSource()}
}

// agentSource is the agent as a source of configuration.
func agentSource() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType: corev3.ApiConfigSource_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices:              []*corev3.GrpcService{grpcToAgent()},
		}},
	}
}

func grpcToAgent() *corev3.GrpcService {
	return &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
		EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: wellknown.ADSCluster},
	}}
}

func overADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

// nobodysName is in no certificate.
const nobodysName = "isthmus:nobody"

// trusting accepts what the roots of one trust domain vouch for and whose URI SAN matches one of sans.
// A CA vouches only for its own trust domain: every matcher lies inside it.
func trusting(td string, sans []*matcherv3.StringMatcher) *tlsv3.CommonTlsContext_CombinedValidationContext {
	if len(sans) == 0 {
		sans = exactly(nobodysName) // to Envoy an empty list would mean anybody
	}
	var typed []*tlsv3.SubjectAltNameMatcher
	for _, m := range sans {
		typed = append(typed, &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: m})
	}
	return &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: typed},
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: bundleName(td), SdsConfig: overADS()},
		},
	}
}

// serverTLS demands a client certificate. Sessions are never resumed: a resumed one would outlive a revocation.
func serverTLS(certificate, td string, sans []*matcherv3.StringMatcher) *corev3.TransportSocket {
	return tlsSocket(&tlsv3.DownstreamTlsContext{
		RequireClientCertificate:         boolean(true),
		DisableStatefulSessionResumption: true,
		SessionTicketKeysType: &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{
			DisableStatelessSessionResumption: true,
		},
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: tls13(), TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{fromAgent(certificate)},
			ValidationContextType: trusting(td, sans), AlpnProtocols: serverALPN,
		},
	})
}

// clientTLS shows a certificate and accepts only servers whose URI SAN matches. No session is kept.
func clientTLS(
	certificate, td string,
	sans []*matcherv3.StringMatcher,
	sni string,
	alpn ...string,
) *corev3.TransportSocket {
	return tlsSocket(&tlsv3.UpstreamTlsContext{
		Sni: sni, MaxSessionKeys: u32(0),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: tls13(), TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{fromAgent(certificate)},
			ValidationContextType: trusting(td, sans), AlpnProtocols: alpn,
		},
	})
}

func tlsSocket(m proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: anyOf(m)}}
}

// inDomain matches every workload of a trust domain.
func inDomain(td string) []*matcherv3.StringMatcher {
	return []*matcherv3.StringMatcher{{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: authz.WorkloadsOf(td)}}}
}

func exactly(values ...string) []*matcherv3.StringMatcher {
	var out []*matcherv3.StringMatcher
	for _, v := range values {
		out = append(out, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: v}})
	}
	return out
}

// bundleSecret is the roots of a trust domain.
func bundleSecret(td string, roots []byte) *tlsv3.Secret {
	return &tlsv3.Secret{
		Name: bundleName(td),
		Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: roots}},
		}},
	}
}
