package federation

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/wellknown"
)

const (
	// probeTimeout exceeds the timeouts of the gateways (envoy/federation_probe.go), so that the gateway that waits in
	// vain reports it.
	probeTimeout = 20 * time.Second
	dialTimeout  = 5 * time.Second
	maxProbe     = 4 << 10
)

// Target is what a probe tests beyond the control plane.
type Target struct {
	Import string // namespace/name of the FederatedImport; empty: only the peer's control plane
	SNI    string // name of the export
	HTTP   bool   // the name may be tested in the handshake without connecting to the service
}

// probeAnswer is the answer of a peer's control plane.
type probeAnswer struct {
	Live   bool   `json:"live"`             // application traffic of the asking mesh may pass, not only control traffic
	Export string `json:"export,omitempty"` // state of the requested export: none, unready or ready
}

const (
	exportNone    = "none"
	exportUnready = "unready"
	exportReady   = "ready"
)

// answerProbe answers a peer's probe. It reveals nothing that the peer could not learn by calling.
func (s *Service) answerProbe(w http.ResponseWriter, r *http.Request, name string) error {
	if p := s.meshPeer(name); p == nil || p.Spec.RefuseProbes {
		return status{http.StatusForbidden, refusal{Code: "ProbesRefused", Message: "this mesh does not answer probes"}}
	}
	a := probeAnswer{Live: peerrules.All(s.snapshotNow(), s.TrustDomain.Name())[name].Live}
	if asked := r.URL.Query().Get("export"); asked != "" {
		switch exported, ready := s.Export(name, asked); {
		case !exported:
			a.Export = exportNone
		case !ready:
			a.Export = exportUnready
		default:
			a.Export = exportReady
		}
	}
	answer(w, http.StatusOK, a)
	return nil
}

// Probe sends one request through both gateways to a peer's control plane. It returns the duration of each leg, or the
// leg that broke. It returns an error only if it could not try.
func (s *Service) Probe(ctx context.Context, name string, t Target) (*adminapi.PeerProbeResponse, error) {
	p := s.meshPeer(name)
	if p == nil {
		return nil, fmt.Errorf("there is no peer %q: 'isthmus peer list' shows all", name)
	}
	if !s.limits.allowAt(probePace, "probing/"+name) {
		return nil, fmt.Errorf("peer %s has been probed a moment ago, and answers one probe a second: wait", name)
	}
	asked := cmp.Or(t.SNI, sni.Probe(p.Spec.KnownAs, p.Spec.TrustDomain))
	if !t.HTTP {
		asked = sni.Probe(p.Spec.KnownAs, p.Spec.TrustDomain)
	}
	pr := newProbing(name, t, asked)
	switch v := peerrules.All(s.snapshotNow(), s.TrustDomain.Name())[name]; {
	case v.Live:
		pr.ok(consent, 0, "trusted, fresh and not suspended here")
	default:
		pr.fail(consent, v.Message, "isthmus peer status "+name)
		if !v.Control || v.Reason == peerrules.Suspended {
			return pr.result(), nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	s.probe(ctx, pr, t)
	return pr.result(), nil
}

// probe carries out the request.
func (s *Service) probe(ctx context.Context, pr *probing, t Target) {
	began := time.Now()
	dialing, stop := context.WithTimeout(ctx, dialTimeout)
	defer stop()
	a, err := s.dialThrough(dialing, ProbeSNI(pr.Peer), plainConn)
	switch {
	case err != nil && a.at == "":
		pr.fail(dialOwn, err.Error(), "isthmus status: is the gateway up, and does this host reach its inner address?")
		return
	case err != nil:
		pr.ok(dialOwn, a.connect, a.at)
		pr.fail(shakeOwn, err.Error(),
			"isthmus status: is the gateway connected, its configuration current and its certificate valid?")
		return
	}
	pr.ok(dialOwn, a.connect, a.at)
	e := exchange{
		method: http.MethodGet, host: ProbeSNI(pr.Peer), path: wellknown.ProbePath, header: http.Header{},
		limit: maxProbe,
	}
	if t.SNI != "" {
		e.path += "?export=" + url.QueryEscape(t.SNI)
	}
	if t.HTTP {
		e.header.Set(wellknown.HeaderProbe, t.SNI)
	}
	r, err := send(ctx, a.conn, e)
	if err != nil { // with TLS 1.3 a server's refusal arrives after the client's handshake has succeeded
		pr.fail(shakeOwn, "the gateway ended the connection without an answer: "+err.Error(),
			"isthmus status, and the gateway's log")
		return
	}
	pr.ok(shakeOwn, a.handshake, "")
	pr.Took = time.Since(began)
	pr.read(r)
}

// The legs in order.
const (
	consent = iota
	dialOwn
	shakeOwn
	dialPeer
	shakePeer
	passPeer
	control
	ready
)

// probing is one probe in progress.
type probing struct {
	adminapi.PeerProbeResponse
	isImport bool
}

func newProbing(peer string, t Target, asked string) *probing {
	theirs := "gateway of " + peer
	pr := &probing{
		isImport: t.Import != "",
		PeerProbeResponse: adminapi.PeerProbeResponse{
			Peer: peer, Import: t.Import, Asked: asked,
			Legs: []adminapi.ProbeLeg{
				consent:   {From: "this mesh", To: peer, Step: "consent"},
				dialOwn:   {From: "control plane", To: "own gateway", Step: "connect"},
				shakeOwn:  {From: "control plane", To: "own gateway", Step: "handshake"},
				dialPeer:  {From: "own gateway", To: theirs, Step: "connect"},
				shakePeer: {From: "own gateway", To: theirs, Step: "handshake"},
				passPeer:  {From: "own gateway", To: theirs, Step: "answer"},
				control:   {From: theirs, To: "its control plane", Step: "answer"},
			},
		},
	}
	switch {
	case t.Import == "":
		pr.Proves = "the two control planes reach each other through both gateways; no export was tried (--import NAME tries one)"
	case t.HTTP:
		pr.Proves = "the peer's gateway lets this mesh ask for the export, and its control plane says whether the service is ready; no request was sent to the service"
	default:
		pr.Proves = "the peer's control plane says whether it exports the service and whether it is ready; a handshake under the export's name was not tried, " +
			"for on raw TCP it opens a connection to the service"
	}
	if pr.isImport {
		pr.Legs = append(pr.Legs, adminapi.ProbeLeg{
			From: "control plane of " + peer, To: "the exported service", Step: "ready",
		})
	}
	for i := range pr.Legs {
		pr.Legs[i].State = adminapi.LegUntried
	}
	return pr
}

func (pr *probing) ok(leg int, took time.Duration, detail string) {
	l := &pr.Legs[leg]
	l.State, l.Took, l.Detail = adminapi.LegOK, took, detail
}

func (pr *probing) fail(leg int, detail, remedy string) {
	l := &pr.Legs[leg]
	l.State, l.Detail, l.Remedy = adminapi.LegFailed, detail, remedy
}

func (pr *probing) result() *adminapi.PeerProbeResponse { return &pr.PeerProbeResponse }

// read determines from an answer how far the request came.
func (pr *probing) read(r *reply) {
	out := readLeg(r.header.Get(wellknown.HeaderEgressLeg))
	if out.failed != "" {
		pr.legBroken(out)
		return
	}
	in := readLeg(r.header.Get(wellknown.HeaderIngressLeg))
	pr.ok(dialPeer, out.connect, out.at)
	pr.ok(shakePeer, out.handshake, "for "+pr.Asked)
	if in.sni != "" && in.sni != pr.Asked {
		pr.fail(shakePeer, "the gateways shook hands for "+in.sni+" instead of "+pr.Asked,
			"isthmus status: is the configuration of the own gateway current?")
	}
	pr.ok(passPeer, out.answer, "the next leg included")
	there := fmt.Sprintf("tell the administrators of %s: isthmus peer status there, and the log of their control plane",
		pr.Peer)
	switch {
	case in.answer > 0:
		pr.ok(control, in.answer, "as the peer's gateway measured it")
	case r.status == http.StatusNotFound:
		pr.fail(control, "the peer's gateway knows no probes: it runs an older version",
			"upgrade the peer's control plane")
		return
	default:
		pr.fail(control, fmt.Sprintf("the peer's control plane does not answer its gateway (HTTP status %d)", r.status),
			there)
		return
	}
	if r.status != http.StatusOK {
		pr.controlRefused(readRefusal(r.body), r.status)
		return
	}
	var a probeAnswer
	if err := strictJSON(r.body, &a); err != nil {
		pr.fail(control, "the peer's answer cannot be read", there)
		return
	}
	pr.controlAnswered(a)
}

// controlAnswered records the answer of the peer's control plane.
func (pr *probing) controlAnswered(a probeAnswer) {
	if !a.Live {
		pr.fail(control, "the peer answers, but lets nothing through except what control planes say: there this mesh "+
			"is suspended, or its roots are stale",
			"tell the administrators of "+pr.Peer+": isthmus peer status there says why the refresh fails")
	}
	switch {
	case !pr.isImport:
	case a.Export == exportReady:
		pr.ok(ready, 0, "so the peer says")
	case a.Export == exportUnready:
		pr.fail(ready, "the service is exported to this mesh and has no endpoint that is ready, so the peer says",
			"tell the administrators of "+pr.Peer)
	default:
		pr.fail(ready, "the peer exports nothing of this name to this mesh",
			"isthmus catalogue "+pr.Peer+" shows what it offers")
	}
}

func (pr *probing) controlRefused(r refusal, status int) {
	detail := cmp.Or(r.Message, fmt.Sprintf("HTTP status %d", status))
	switch r.Code {
	case "ProbesRefused":
		pr.fail(control,
			"the peer answers no probes of this mesh (spec.refuseProbes of its MeshPeer); all legs before stand",
			"isthmus peer status "+pr.Peer+" shows what the control planes exchange without probes")
	case "TooMany":
		pr.fail(control, "the peer has had too many probes of this mesh; all legs before stand", "wait some seconds")
	default:
		pr.fail(control, "the peer refuses: "+detail,
			"tell the administrators of "+pr.Peer+": isthmus peer status there")
	}
}
