package standing

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/spiffe"
)

// Judge says why the certificate that a connection showed is not good now: it has ended, its root is withdrawn, or
// whom it was issued to was revoked. A handshake says only what was so then: each call is judged, and what stays open
// again and again.
func (s *Standing) Judge(ctx context.Context, c tls.ConnectionState) error {
	return s.judgeShown(ctx, shownBy(c))
}

// shownCert is what there is to judge of a certificate.
type shownCert struct {
	none       error // why it is none
	id         spiffe.ID
	node       string // whose own it is
	workload   bool
	generation string
	notAfter   time.Time
	chains     [][]*x509.Certificate
}

func shownBy(c tls.ConnectionState) (s shownCert) {
	if s.id, s.none = ca.PeerID(c); s.none != nil {
		return s
	}
	leaf := c.VerifiedChains[0][0]
	s.node, _ = spiffe.NodeName(s.id)
	_, _, s.workload = spiffe.WorkloadParts(s.id)
	s.generation, s.notAfter, s.chains = ca.Generation(leaf), leaf.NotAfter, c.VerifiedChains
	return s
}

func (s *Standing) judgeShown(ctx context.Context, c shownCert) error {
	switch {
	case c.none != nil:
		return status.Errorf(codes.Unauthenticated, "a client certificate of this mesh is needed: %v", c.none)
	case s.Now().After(c.notAfter):
		return status.Errorf(codes.Unauthenticated, "the certificate of %s ended at %s: connect with a new one", c.id,
			c.notAfter.UTC())
	case !s.Trusts(c.chains):
		return status.Errorf(codes.Unauthenticated,
			"the certificate of %s leads to a root that this mesh has withdrawn: connect with a new one", c.id)
	}
	return s.holds(ctx, c.id, c.generation)
}

// JudgeCaller judges the certificate of somebody who showed one.
func (s *Standing) JudgeCaller(ctx context.Context, c door.Caller) error {
	if c.TLS == nil {
		return status.Error(codes.Unauthenticated, "a client certificate of this mesh is needed")
	}
	return s.Judge(ctx, *c.TLS)
}

// TLSOf is the TLS connection behind a call; false for one that came without a certificate.
func TLSOf(ctx context.Context) (tls.ConnectionState, bool) {
	c, ok := door.From(ctx)
	if !ok || c.TLS == nil || len(c.TLS.PeerCertificates) == 0 {
		return tls.ConnectionState{}, false
	}
	return *c.TLS, true
}

// JudgeStream ends a stream when its certificate stops being good, whatever its handler waits for.
func (s *Standing) JudgeStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	c, ok := TLSOf(ss.Context())
	if !ok {
		return next(srv, ss)
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	defer s.open.add(c, cancel)()
	if err := s.Judge(ctx, c); err != nil {
		return err
	}
	err := next(srv, judgedStream{ss, ctx})
	if why := context.Cause(ctx); ss.Context().Err() == nil && why != nil {
		return why
	}
	return err
}

type judgedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s judgedStream) Context() context.Context { return s.ctx }

// JudgeHTTP refuses requests whose certificate is good no more.
func (s *Standing) JudgeHTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			if err := s.Judge(r.Context(), *r.TLS); err != nil {
				http.Error(w, status.Convert(err).Message(), http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
