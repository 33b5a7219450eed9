package agents

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// Attest exchanges a join token for a node identity.
func (a *Agents) Attest(ctx context.Context, r *agentapi.AttestRequest) (*agentapi.AttestResponse, error) {
	c, err := door.Of(ctx)
	if err != nil {
		return nil, err
	}
	from, source := c.From(), c.Net()
	if a.refusals.exceeded(source) {
		return nil, status.Error(codes.ResourceExhausted,
			"too many join tokens from this address were refused: wait a minute")
	}
	if err := a.Pending.Flush(ctx); err != nil {
		return nil, status.Errorf(codes.Unavailable, "nobody can join before what was revoked is written down: %v", err)
	}
	at, err := a.Authority.Attest(ctx, r.Token, r.CSR, from)
	if at.Node != "" { // the node's earlier generation has ended, and with it its connections
		a.Standing.Forget(at.Node)
		a.Door.RecheckNode(ctx, at.Node)
	}
	if err != nil {
		a.refusals.count(source)
		if at.Node != "" {
			err = errors.Join(err, a.record(ctx, joined(at, from, state.Failed)))
			// the state records all other refusals
		} else if !errors.Is(err, ca.ErrToken) || errors.Is(err, ca.ErrTokenMalformed) {
			a.Refused(state.Event{
				Actor: state.Stranger, From: source.String(), Action: "node join",
				Detail: err.Error(),
			})
		}
		a.Log.Warn("join refused", "from", from, "error", err)
		return nil, status.Error(codes.PermissionDenied,
			"the join token is not good (any more), or the certificate request is none")
	}
	if err := a.regrant(ctx, at.TokenGrant); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := a.record(ctx, joined(at, from, state.OK)); err != nil {
		return nil, status.Errorf(codes.Unavailable, "node %s gets no certificate, because that cannot be recorded: %v",
			at.Node, err)
	}
	a.Log.Info("node joined", "node", at.Node, "role", at.Role, "from", from)
	return &agentapi.AttestResponse{Node: at.Node, Role: at.Role, Chain: at.Chain, Roots: at.Roots}, nil
}

func joined(at ca.Attestation, from, outcome string) state.Event {
	return state.Event{
		Actor: kind.Node(at.Node).String(), From: from, Action: "node join", Object: kind.Node(at.Node).String(),
		Outcome: outcome,
		Detail:  fmt.Sprintf("role %s, join token %s", at.Role, at.ID),
	}
}

// Sign issues a certificate for the node itself or for a workload registered on it, and for nothing else.
func (a *Agents) Sign(ctx context.Context, r *agentapi.SignRequest) (*agentapi.SignResponse, error) {
	caller, err := door.Of(ctx)
	if err != nil {
		return nil, err
	}
	n, err := a.node(ctx, caller)
	if err != nil {
		return nil, err
	}
	td, ttl := a.TrustDomain, a.NodeTTL
	id, err := spiffe.Node(td, n.Name)
	if r.Namespace != "" || r.ServiceAccount != "" {
		if !n.Grant.Covers(r.Namespace, r.ServiceAccount) || !a.Store.Hosts(n.Name, r.Namespace, r.ServiceAccount) {
			a.Log.Warn("certificate refused", "node", n.Name, "namespace", finding.Truncate(r.Namespace),
				"service_account", finding.Truncate(r.ServiceAccount))
			return nil, status.Errorf(codes.PermissionDenied, "no workload %s/%s is registered on node %s",
				finding.Truncate(r.Namespace), finding.Truncate(r.ServiceAccount), n.Name)
		}
		ttl = a.certificateTTL()
		id, err = spiffe.Workload(td, r.Namespace, r.ServiceAccount)
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	ration := a.quotas.node(n.Name)
	if err := ration.certificate(id.String(), cmp.Or(ttl, a.NodeTTL), a.hosted(n), a.Now()); err != nil {
		ration.warn.Do(func() {
			a.Log.Warn("a node asks for more certificates than it needs: is it restarted again and "+
				"again, or somebody else's?", "node", n.Name, "identity", id.String())
		})
		return nil, err
	}
	leave, err := ration.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	chain, err := a.Authority.Sign(ctx, r.CSR, id, ttl, ca.Holder{Node: n.Name, Generation: n.Generation})
	if errors.Is(err, state.ErrRevoked) { // another control plane revoked it
		return nil, status.Errorf(codes.PermissionDenied, "node %s was revoked, or has joined anew", n.Name)
	}
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "certificate for %s: %v", id, err)
	}
	if _, err := a.node(ctx, caller); err != nil {
		return nil, err // revoked meanwhile, so the certificate is not returned
	}
	a.Signed()
	return &agentapi.SignResponse{Chain: chain, Roots: a.Authority.Roots()}, nil
}

// hosted returns the number of workloads that a node has registered; a gateway counts as one.
func (a *Agents) hosted(n state.Node) int {
	if n.Role == snapshot.RoleGateway {
		return 1
	}
	_, said, _ := a.Store.Said(n.Name)
	return len(said)
}

func (a *Agents) certificateTTL() (ttl time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.briefing != nil {
		return a.briefing.mesh.CertificateTTL
	}
	return 0 // the authority's default
}
