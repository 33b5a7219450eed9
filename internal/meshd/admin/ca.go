package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/meshd/rotation"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// CAStatus returns the state of the certificate authority, including a root rotation.
func (a *Admin) CAStatus(ctx context.Context, _ *adminapi.Empty) (*adminapi.CAStatusResponse, error) {
	resp := &adminapi.CAStatusResponse{
		TrustDomain: a.Authority.TrustDomain().Name(), Operator: a.Authority.OperatorsRoot(),
		Roots: []adminapi.CARoot{},
	}
	for i, c := range a.Authority.RootCertificates() {
		resp.Roots = append(resp.Roots, adminapi.CARoot{
			SHA256: spiffe.Fingerprint(c), NotAfter: c.NotAfter,
			Signs: i == 0,
		})
	}
	rot := a.Authority.Rotation()
	if rot.Step == "" {
		return resp, nil
	}
	waits, err := a.Rotator.Waits(ctx, rot)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	resp.Rotation = &adminapi.CARotation{
		Step: string(rot.Step), Since: rot.Since, Began: rot.Began, OldSHA256: rot.Old, NewSHA256: rot.New,
		Waits: append([]adminapi.CAWait{}, waits...), Passed: append([]string{}, rot.Passed...),
		Expected: rotation.Expected(rot, waits),
		Error:    a.Rotator.Failure(),
	}
	return resp, nil
}

// CARotate starts a root rotation or controls the one in progress.
func (a *Admin) CARotate(ctx context.Context, r *adminapi.CARotateRequest) (*adminapi.CAStatusResponse, error) {
	var err error
	switch {
	case r.Force && r.Cancel:
		return nil, status.Error(codes.InvalidArgument, "a rotation either goes on by force or is cancelled")
	case r.Force:
		err = a.Rotator.Force(ctx)
	case r.Cancel:
		_, err = a.Authority.CancelRotation(ctx)
	default:
		_, err = a.Authority.BeginRotation(ctx)
	}
	switch {
	case errors.Is(err, ca.ErrNotRotating):
		return nil, status.Error(codes.FailedPrecondition,
			"no rotation of the root is under way: isthmus ca rotate begins one")
	case errors.Is(err, ca.ErrRotating) && !r.Cancel:
		return nil, status.Error(codes.FailedPrecondition,
			"a rotation of the root is under way already: isthmus ca status says how far it is, and for whom it waits")
	case err != nil:
		return nil, invalid(err)
	}
	return a.CAStatus(ctx, &adminapi.Empty{})
}

// rotationPatience is how long a step may take before a check warns about it.
const rotationPatience = time.Minute

func checkRotation(rot ca.Rotation, waits []adminapi.CAWait, failure string, now time.Time) adminapi.Check {
	c := adminapi.Check{
		Name: "root rotation", State: "ok",
		Detail: fmt.Sprintf("%s since %s", rot.Step, rot.Since.UTC().Format(time.RFC3339)),
	}
	if len(waits) > 0 {
		c.Detail += fmt.Sprintf(", waits for %s %s: %s", waits[0].What, waits[0].Name, waits[0].Why)
		if more := len(waits) - 1; more > 0 {
			c.Detail += fmt.Sprintf(", and for %d more", more)
		}
	}
	if failure != "" {
		c.State, c.Detail, c.Remedy = "failed", c.Detail+": "+failure,
			"fix what is named here; the step is tried again by itself"
	} else if len(waits) > 0 && now.Sub(rot.Since) > rotationPatience {
		c.State, c.Remedy = "warning", "isthmus ca status names all that it waits for"
	}
	return c
}

// mayInvite refuses an invitation that nobody could accept: it would pin the new root while a gateway still presents
// the old one.
func (a *Admin) mayInvite() error {
	rot := a.Authority.Rotation()
	if rot.Step != ca.Activated {
		return nil
	}
	reports := a.Agents.Reports()
	for _, n := range a.Snapshot().Registry.Nodes {
		if old, _ := rotation.IssuedUnder(rot, reports[n.Name].Certs, a.Now()); n.Role == snapshot.RoleGateway &&
			len(old) > 0 {
			return fmt.Errorf("the mesh's root has just been replaced, and gateway %s has no certificate under the new one yet: try again in a few seconds (isthmus ca status)", n.Name)
		}
	}
	return nil
}
