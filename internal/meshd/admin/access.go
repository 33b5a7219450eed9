package admin

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// Lifetimes of administrator certificates.
const (
	adminTTL    = 8 * time.Hour
	maxAdminTTL = 24 * time.Hour
)

// AdminCert issues an administrator certificate. The door admits only users of this host, so that an administrator with
// a certificate cannot create another.
func (a *Admin) AdminCert(ctx context.Context, r *adminapi.AdminCertRequest) (*agentapi.SignResponse, error) {
	maker, err := door.Of(ctx)
	if err != nil {
		return nil, err
	}
	id, err := spiffe.Admin(a.Authority.TrustDomain(), r.Name)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "administrator name %q: use letters, digits, '-', '.' and '_'",
			r.Name)
	}
	ttl := r.TTL
	if ttl == 0 {
		ttl = adminTTL
	}
	if ttl < time.Second || ttl > maxAdminTTL {
		return nil, status.Errorf(codes.InvalidArgument,
			"a life of %s: an administrator's certificate lives a second to %s", ttl, maxAdminTTL)
	}
	if err := a.Pending.Flush(ctx); err != nil { // a pending revocation concerns earlier certificates
		return nil, status.Errorf(codes.Unavailable,
			"nobody gets a certificate before what was revoked is written down: %v", err)
	}
	generation := ca.NewGeneration()
	chain, err := a.Authority.Sign(ctx, r.CSR, id, ttl, ca.Holder{Generation: generation})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	// It is valid only once it is stored.
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	one := state.Admin{
		Generation: generation, Name: r.Name, Serial: fmt.Sprintf("%x", leaf.SerialNumber), Created: a.Now(),
		MadeBy: maker.Actor(), NotAfter: leaf.NotAfter,
	}
	if err := a.State.AddAdmin(ctx, one); err != nil {
		return nil, err
	}
	door.Note(ctx,
		fmt.Sprintf("made certificate %s, ID %s, until %s", one.Serial, generation,
			leaf.NotAfter.UTC().Format(time.RFC3339)))
	return &agentapi.SignResponse{Chain: chain, Roots: a.Authority.Roots()}, nil
}

// AdminList lists administrator certificates, including recently expired ones.
func (a *Admin) AdminList(ctx context.Context, _ *adminapi.Empty) (*adminapi.AdminListResponse, error) {
	all, err := a.State.Admins(ctx)
	if err != nil {
		return nil, err
	}
	resp := &adminapi.AdminListResponse{Admins: []adminapi.AdminCert{}}
	for _, one := range all {
		resp.Admins = append(resp.Admins, adminCert(one))
	}
	return resp, nil
}

func adminCert(a state.Admin) adminapi.AdminCert {
	return adminapi.AdminCert{
		ID: a.Generation, Name: a.Name, Serial: a.Serial, Created: a.Created, MadeBy: a.MadeBy, NotAfter: a.NotAfter,
		Revoked: a.Revoked,
	}
}

// shutOutWait is how long a revocation of somebody who is known here waits for the state.
const shutOutWait = time.Second

// AdminRevoke revokes administrator certificates, with immediate effect on open connections.
func (a *Admin) AdminRevoke(
	ctx context.Context, r *adminapi.AdminRevokeRequest,
) (*adminapi.AdminRevokeResponse, error) {
	if (r.Name == "") == (r.ID == "") {
		return nil, status.Error(codes.InvalidArgument,
			"name an administrator or the ID of one certificate: isthmus admin list shows both")
	}
	soon, cancel := context.WithTimeout(ctx, shutOutWait)
	defer cancel()
	all, err := a.State.Admins(soon)
	if err != nil {
		if all = a.Standing.Admins(); len(all) == 0 { // a state that cannot be read must not prevent a revocation
			return nil, err
		}
	}
	now := a.Now()
	resp := &adminapi.AdminRevokeResponse{Admins: []adminapi.AdminCert{}}
	var revoked []state.Admin
	for _, one := range all {
		if (one.Name == r.Name || one.Generation == r.ID) && one.Revoked.IsZero() && now.Before(one.NotAfter) {
			a.Standing.End(one.Generation)
			one.Revoked = now
			resp.Admins = append(resp.Admins, adminCert(one))
			revoked = append(revoked, one)
		}
	}
	if len(resp.Admins) == 0 && err != nil {
		return nil, err
	}
	if len(resp.Admins) == 0 {
		return nil, status.Errorf(codes.NotFound,
			"administrator %q has no valid certificate: isthmus admin list shows them", r.Name+r.ID)
	}
	a.Door.Recheck(ctx)
	a.Agents.TellRevoked(revoked)
	resp.Unwritten, err = a.Pending.CarryOut(ctx, "revocation of administrator "+r.Name+r.ID,
		func(ctx context.Context) error {
			err := a.State.RevokeAdmins(ctx, r.Name, r.ID, now)
			for _, one := range revoked { // others of that name may have been read meanwhile
				a.Standing.Forget(one.Name)
			}
			return err
		})
	return resp, err
}

// TokenList lists join tokens, including recently expired ones.
func (a *Admin) TokenList(ctx context.Context, _ *adminapi.Empty) (*adminapi.TokenListResponse, error) {
	all, err := a.State.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	resp := &adminapi.TokenListResponse{Tokens: []adminapi.TokenInfo{}}
	for _, t := range all {
		resp.Tokens = append(resp.Tokens, adminapi.TokenInfo{
			ID: t.ID, Node: t.Node, Role: t.Role, Grant: t.Grant, Created: t.Created, MadeBy: t.MadeBy,
			Expires: t.Expires,
			State:   tokenState(t, a.Now()), UsedBy: t.UsedBy,
		})
	}
	return resp, nil
}

func tokenState(t state.Token, now time.Time) string {
	switch {
	case !t.UsedAt.IsZero() && !t.UsedAt.Equal(t.Expires):
		return "used"
	case !t.Cancelled.IsZero():
		return "cancelled"
	case !t.UsedAt.IsZero() || !now.Before(t.Expires): // marked as expired
		return "expired"
	}
	return "open"
}

// TokenCancel cancels unused join tokens.
func (a *Admin) TokenCancel(
	ctx context.Context, r *adminapi.TokenCancelRequest,
) (*adminapi.TokenCancelResponse, error) {
	if (r.ID == "") == (r.MadeBy == "") {
		return nil, status.Error(codes.InvalidArgument,
			"name the ID of a join token, or who made those that are to be cancelled: isthmus token list shows both")
	}
	if r.MadeBy != "" {
		return a.cancelTokensMadeBy(ctx, r.MadeBy)
	}
	id, now := tokenID(r.ID), a.Now()
	unwritten, err := a.Pending.CarryOut(ctx, "cancellation of join token "+id, func(ctx context.Context) error {
		return a.State.CancelToken(ctx, id, now)
	})
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil, status.Errorf(codes.NotFound, "there is no join token %q: isthmus token list shows them",
			finding.WithoutTokens(id))
	case errors.Is(err, state.ErrUsed):
		return nil, status.Errorf(codes.FailedPrecondition,
			"join token %s was used already, or has expired: isthmus node revoke shuts out the node that joined with it", id)
	}
	return &adminapi.TokenCancelResponse{Cancelled: 1, Ended: adminapi.Ended{Unwritten: unwritten}}, err
}

func (a *Admin) cancelTokensMadeBy(ctx context.Context, maker string) (*adminapi.TokenCancelResponse, error) {
	resp := &adminapi.TokenCancelResponse{}
	all, err := a.State.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	now := a.Now()
	for _, t := range all {
		if t.MadeBy == maker && tokenState(t, now) == "open" {
			resp.Cancelled++
		}
	}
	resp.Unwritten, err = a.Pending.CarryOut(ctx, "cancellation of the join tokens made by "+maker,
		func(ctx context.Context) error {
			_, err := a.State.CancelTokensMadeBy(ctx, maker, now)
			return err
		})
	return resp, err
}

// RevokeNode revokes a node or gateway.
func (a *Admin) RevokeNode(ctx context.Context, r *adminapi.NodeRequest) (*adminapi.RevokedNode, error) {
	unwritten, err := a.Agents.Revoke(ctx, r.Node)
	if errors.Is(err, state.ErrNotFound) {
		return nil, status.Errorf(codes.NotFound,
			"there is no node %q: isthmus status lists them; isthmus token cancel makes a join token "+
				"void that nobody has used", r.Node)
	}
	if err != nil {
		return nil, err
	}
	certs, err := a.Agents.RemainingCertificates(ctx, r.Node)
	return &adminapi.RevokedNode{Node: r.Node, Certificates: certs, Ended: adminapi.Ended{Unwritten: unwritten}}, err
}
