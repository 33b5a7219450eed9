package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/wellknown"
)

// meshALPN marks mesh mTLS, so that a PERMISSIVE port can distinguish it from an application's own TLS.
const meshALPN = "isthmus"

// serverALPN omits meshALPN, so that no protocol is negotiated with a mesh client, and Envoy distinguishes HTTP/2 from
// HTTP/1.1 by the application's first bytes. A negotiated meshALPN would mean HTTP/1.1 to Envoy.
var serverALPN = []string{"h2", "http/1.1"}

// tls13 sets the minimum version and, since Envoy requires it, the maximum.
func tls13() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
	}
}

// fromAgent gets a certificate from the agent over SDS. The key never leaves the host.
func fromAgent(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: agentSource()}
}

// agentSource returns the agent as a source of configuration.
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

// unmatchableName is a SAN that no certificate has.
const unmatchableName = "isthmus:nobody"

// validation accepts certificates that chain to the roots of a trust domain and have a URI SAN that matches one of
// sans. All matchers must lie inside that trust domain.
func validation(td string, sans []*matcherv3.StringMatcher) *tlsv3.CommonTlsContext_CombinedValidationContext {
	if len(sans) == 0 {
		sans = exactly(unmatchableName) // Envoy treats an empty list as "any"
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

// serverTLS requires a client certificate. It disables session resumption, which would outlive a revocation.
func serverTLS(certificate, td string, sans []*matcherv3.StringMatcher) *corev3.TransportSocket {
	return tlsSocket(&tlsv3.DownstreamTlsContext{
		RequireClientCertificate:         boolean(true),
		DisableStatefulSessionResumption: true,
		SessionTicketKeysType: &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{
			DisableStatelessSessionResumption: true,
		},
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: tls13(), TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{fromAgent(certificate)},
			ValidationContextType: validation(td, sans), AlpnProtocols: serverALPN,
		},
	})
}

// clientTLS presents a certificate and accepts only servers whose URI SAN matches. It stores no sessions.
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
			ValidationContextType: validation(td, sans), AlpnProtocols: alpn,
		},
	})
}

func tlsSocket(m proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: anyOf(m)}}
}

// inDomain matches all workloads of a trust domain.
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

// bundleSecret holds the roots of a trust domain.
func bundleSecret(td string, roots []byte) *tlsv3.Secret {
	return &tlsv3.Secret{
		Name: bundleName(td),
		Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: roots}},
		}},
	}
}
