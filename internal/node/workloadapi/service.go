package workloadapi

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/node/sds"
	"isthmus.dev/isthmus/internal/spiffe"
)

// service answers one workload. The JWT and WIT profiles are not implemented, and say so.
type service struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	served *served
}

// FetchX509SVID sends the workload's certificate, key and roots, and again whenever any of them changes.
func (s *service) FetchX509SVID(
	_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer,
) error {
	return s.served.push(stream.Context(), func(id spiffe.ID, h sds.IdentityState) (string, func() error) {
		if h.SVID == nil || h.SVID.Expired(time.Now()) || len(h.Roots) == 0 {
			return "", nil
		}
		roots := concat(h.Roots)
		return version(h.SVID.Leaf().Raw, roots), func() error {
			key, err := h.SVID.KeyDER()
			if err != nil {
				return err
			}
			return stream.Send(&workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
				SpiffeId: id.String(), X509Svid: concat(h.SVID.Chain), X509SvidKey: key, Bundle: roots,
			}}})
		}
	})
}

// FetchX509Bundles sends the mesh's roots, and again whenever they change.
func (s *service) FetchX509Bundles(
	_ *workload.X509BundlesRequest, stream workload.SpiffeWorkloadAPI_FetchX509BundlesServer,
) error {
	return s.served.push(stream.Context(), func(id spiffe.ID, h sds.IdentityState) (string, func() error) {
		if len(h.Roots) == 0 {
			return "", nil
		}
		roots := concat(h.Roots)
		return version(roots), func() error {
			bundles := map[string][]byte{id.TrustDomain().IDString(): roots}
			return stream.Send(&workload.X509BundlesResponse{Bundles: bundles})
		}
	})
}

// answer is the version of what there is to send, and how; nothing while there is nothing to send.
type answer func(spiffe.ID, sds.IdentityState) (version string, send func() error)

// push sends an answer, and again whenever its version changes, until the caller is gone or is no longer the workload.
func (w *served) push(ctx context.Context, now answer) error {
	defer w.streams.Add(-1)
	if w.streams.Add(1) > maxStreams {
		return status.Errorf(codes.ResourceExhausted, "workload %s has %d streams open: close some", w.Name, maxStreams)
	}
	c := connOf(ctx)
	first := time.NewTimer(w.server.patience)
	defer first.Stop()
	id, err := w.identity(ctx, first.C)
	if err != nil {
		return err
	}
	for last := ""; ; {
		held, ok := w.server.cfg.Store.Acquire(id)
		if !ok {
			return status.Errorf(codes.Unavailable, "this node does not hold %s", id)
		}
		if v, send := now(id, held); send != nil && v != last {
			if err := c.caller.isOf(&w.Workload); err != nil {
				return c.denied(err)
			}
			if err := send(); err != nil {
				return err
			}
			last = v
			first.Stop()
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-first.C:
			return status.Errorf(codes.Unavailable,
				"there is no valid certificate for %s yet: the agent's log says why", id)
		case <-held.Changed:
		}
	}
}

// identity returns the identity of the workload, once the agent knows its trust domain.
func (w *served) identity(ctx context.Context, tooLate <-chan time.Time) (spiffe.ID, error) {
	select {
	case <-w.server.cfg.Joined:
	case <-ctx.Done():
		return spiffe.ID{}, status.FromContextError(ctx.Err()).Err()
	case <-tooLate:
		return spiffe.ID{}, status.Error(codes.Unavailable, "the agent has not joined the mesh yet")
	}
	id, err := spiffe.Workload(w.server.cfg.TrustDomain(), w.Account.Namespace, w.Account.Name)
	if err != nil {
		return spiffe.ID{}, status.Errorf(codes.Internal, "name the workload's identity: %v", err)
	}
	return id, nil
}

// concat returns DER after DER, as the Workload API wants chains and bundles.
func concat(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, c.Raw...)
	}
	return out
}

func version(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
