package accesslog

import (
	"net/http"
	"strings"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Verdicts.
const (
	verdictAllowed   = "allowed"
	verdictDenied    = "denied"    // by policy
	verdictMalformed = "malformed" // not a request that passes the hardened parser
	verdictHandshake = "handshake" // no TLS handshake
	verdictFailed    = "failed"    // allowed, but it did not work
)

// outcome is the result of a call: verdict, class and a reason for people. A class is one word for the kind of refusal,
// to count and search by.
type outcome struct{ verdict, class, reason string }

func (j outcome) withReason(reason string) outcome {
	j.reason = firstOf(reason, j.reason)
	return j
}

// The kinds of refusal and failure of Envoys. What an application answers is none of them.
var (
	allowed = outcome{verdict: verdictAllowed}

	deniedByPolicy = outcome{verdictDenied, "policy-deny", "a policy denies it"}
	notAllowed     = outcome{verdictDenied, "policy-none", "no policy allows it"}
	notAdmitted    = outcome{
		verdictDenied, "policy-raw",
		"policies let this caller open no raw connection to this port",
	}
	closedByPolicy = outcome{verdictDenied, "policy-closed", "a policy is written and not in force"}
	notACaller     = outcome{verdictDenied, "import-callers", "the FederatedImport does not list the caller"}
	notExported    = outcome{verdictDenied, "export-rules", "no rule of the FederatedExport allows it"}
	notMutualTLS   = outcome{verdictDenied, "plaintext", "not mutual TLS, or not a port of this workload"}
	unlisted       = outcome{verdictDenied, "unlisted", "no service there lists the caller"}
	twoNames       = outcome{
		verdictDenied, "two-names",
		"the certificate has more than one URI name, so that nobody knows whose it is",
	}
	notOffered = outcome{verdictDenied, "not-offered", "nothing is offered under this name"}

	refusedUpgrade  = outcome{verdictMalformed, "upgrade", "requests may not change to this protocol here"}
	tooLarge        = outcome{verdictMalformed, "too-large", "larger than what passes"}
	protocolError   = outcome{verdictMalformed, "protocol", "the client broke its protocol"}
	otherMalformed  = outcome{verdictMalformed, "malformed", ""}
	failedHandshake = outcome{verdictHandshake, "handshake", ""}

	noSource        = outcome{verdictFailed, "no-source", "nobody serves this import now"}
	noEndpoint      = outcome{verdictFailed, "no-endpoint", "no endpoint is ready"}
	unreachable     = outcome{verdictFailed, "unreachable", "the endpoint could not be reached"}
	reset           = outcome{verdictFailed, "reset", "the endpoint ended the connection before its answer was whole"}
	timedOut        = outcome{verdictFailed, "timeout", "no answer in time"}
	foreignProtocol = outcome{verdictFailed, "upstream-protocol", "the endpoint answered by another protocol"}
	overflow        = outcome{verdictFailed, "overflow", "too many calls wait for the endpoint"}
	overloaded      = outcome{verdictFailed, "overload", "the proxy is overloaded"}
	leftEarly       = outcome{verdictFailed, "client-left", "the client closed its side before the answer"}
	otherFailure    = outcome{verdictFailed, "failed", ""}
)

// byFlag maps Envoy's response flags to kinds, the most specific first.
var byFlag = []struct {
	any flags
	is  outcome
}{
	{overload, overloaded},
	{noHealthyUpstream | noCluster | unresolved, noEndpoint},
	{upstreamUnreachable | retryLimit, unreachable},
	{upstreamProtocolError, foreignProtocol},
	{upstreamTimeout | streamIdle | durationTimeout | maxDuration, timedOut},
	{upstreamOverflow, overflow},
	{downstreamProtocolError, protocolError},
	{upstreamReset | upstreamTermination | localReset, reset},
}

// judgeHTTP judges a request.
func judgeHTTP(log string, r *record) outcome {
	code, details := r.code, r.details
	policy, byPolicy := deniedBy(details)
	switch {
	case byPolicy:
		return judgePolicy(log, policy)
	case details == "direct_response" && log == wellknown.LogInbound:
		return notMutualTLS
	case details == "direct_response" && code >= 500:
		return noSource.withReason(r.tags[wellknown.TagAbsent])
	case details == "direct_response", code == http.StatusForbidden && r.flags&noCluster != 0:
		return unlisted
	case details == "upgrade_failed":
		return refusedUpgrade
	case details == "route_not_found", r.flags&noRoute != 0 && details != answeredByServer:
		return notOffered.withReason("no such host, path or method is offered")
	}
	switch {
	case details == answeredByServer && r.flags&downstreamProtocolError == 0:
		return allowed // also after another endpoint had failed
	case code == http.StatusSwitchingProtocols && r.flags&(upstreamTermination|upstreamReset|localReset) != 0:
		return allowed // an upgrade ends when one of the two hangs up
	case large(code):
		return tooLarge.withReason(informativeDetails(details))
	}
	for _, k := range byFlag {
		switch {
		case r.flags&k.any == 0:
		case details != "no_healthy_upstream":
			return k.is.withReason(informativeDetails(details))
		case log == wellknown.LogEgress:
			return k.is.withReason("no gateway of the peer is reached, or nothing is ready there: isthmus peer probe tells which")
		default:
			return k.is
		}
	}
	atClient := log == wellknown.LogOutbound || log == wellknown.LogInbound
	switch {
	case atClient && r.flags&clientLeft != 0 && code == 0:
		return leftEarly
	case r.flags&(clientLeft|clientReset) != 0, code < 400:
		return allowed
	case code < 500:
		return otherMalformed.withReason(informativeDetails(details))
	}
	return otherFailure.withReason(informativeDetails(details))
}

func large(code uint64) bool {
	return code == http.StatusRequestHeaderFieldsTooLarge || code == http.StatusRequestEntityTooLarge ||
		code == http.StatusRequestURITooLong
}

// judgeTCP judges a connection, as far as TLS does not.
func judgeTCP(log string, r *record) outcome {
	policy, byPolicy := deniedBy(r.ended)
	boundary := log == wellknown.LogIngress || log == wellknown.LogEgress
	told := r.tags[wellknown.TagRefused]
	switch {
	case byPolicy:
		return judgePolicy(log, policy)
	case told != "" && log == wellknown.LogInbound &&
		strings.HasSuffix(r.tags[wellknown.TagName], wellknown.CallerName):
		return notAdmitted
	case told != "" && log == wellknown.LogInbound:
		return notMutualTLS.withReason(told)
	case told != "":
		return unlisted.withReason(told)
	case r.tags[wellknown.TagAbsent] != "":
		return noSource.withReason(r.tags[wellknown.TagAbsent])
	case r.flags&unauthorized != 0:
		return notAllowed.withReason(r.ended)
	case r.flags&noRoute != 0 && boundary && strings.Contains(r.sni, wellknown.CallerName+"."):
		return notACaller.withReason("no FederatedImport lists this caller under this name")
	case r.flags&noRoute != 0 && boundary:
		return notOffered
	}
	for _, k := range byFlag {
		if r.flags&k.any != 0 {
			return k.is.withReason(firstOf(r.upstreamFailure, informativeDetails(r.ended)))
		}
	}
	return allowed.withReason(firstOf(informativeDetails(r.ended), r.upstreamFailure))
}

// failedTLS returns why a handshake failed, of a client with us or of ours with a server. These are not failures: the
// inspector's note that a connection is not TLS ("TLS_error|"), a refused connection, and a client that left after it
// was authenticated ("system library").
func failedTLS(log string, r *record) string {
	left := r.uri != "" && strings.Contains(r.failure, "system library")
	if r.failure != "" && !left && !strings.HasPrefix(r.failure, "TLS_error|") {
		return r.failure
	}
	calling := log == wellknown.LogEgress || log == wellknown.LogOutbound
	if calling && (strings.HasPrefix(r.upstreamFailure, "TLS_error") || strings.Contains(r.upstreamFailure, "verify")) {
		return r.upstreamFailure
	}
	return ""
}

// answeredByServer is Envoy's word for what the server answered itself.
const answeredByServer = "via_upstream"

// informativeDetails returns details that say anything beyond whose answer it is.
func informativeDetails(details string) string {
	if details == answeredByServer {
		return ""
	}
	return details
}

// hygiene are the built-in policies that apply to every request.
var hygiene = map[string]outcome{
	"isthmus/path-hygiene":      {verdictMalformed, "path", "the path means different things to different servers"},
	"isthmus/host-hygiene":      {verdictMalformed, "host", "the Host means different hosts to different servers"},
	"isthmus/header-lookalike":  {verdictMalformed, "header", "a header may be read as one that a policy compares"},
	"isthmus/upgrade-to-http":   {verdictMalformed, "upgrade", "no request changes to another form of HTTP or TLS"},
	"isthmus/upgrade-with-body": {verdictMalformed, "upgrade", "an upgrade has no body"},
}

// deniedBy returns the policy by which Envoy's RBAC refused, "none" where none allowed.
func deniedBy(details string) (policy string, ok bool) {
	_, rest, ok := strings.Cut(details, "rbac_access_denied_matched_policy[")
	policy, _, _ = strings.Cut(rest, "]")
	return policy, ok
}

func judgePolicy(log, policy string) outcome {
	if what, closed := strings.CutPrefix(policy, model.ClosedPrefix); closed {
		what, _, _ = strings.Cut(what, "#")
		return closedByPolicy.withReason("closed: " + what + " is written and not in force")
	}
	if own, ok := hygiene[policy]; ok {
		return own
	}
	switch {
	case policy != "none":
		return deniedByPolicy.withReason("policy " + policy + " denies it")
	case log == wellknown.LogEgress:
		return notACaller
	case log == wellknown.LogIngress:
		return notExported
	}
	return notAllowed
}
