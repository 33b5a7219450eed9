package meshd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// CAStatus is the certificate authority, and how far a rotation of its root has come.
func (a *admin) CAStatus(ctx context.Context, _ *adminapi.Empty) (*adminapi.CAStatusResponse, error) {
	resp := &adminapi.CAStatusResponse{
		TrustDomain: a.d.authority.TrustDomain().Name(), Operator: a.d.authority.OperatorsRoot(), Roots: []adminapi.CARoot{},
	}
	for i, c := range a.d.authority.RootCertificates() {
		resp.Roots = append(resp.Roots, adminapi.CARoot{SHA256: spiffe.Fingerprint(c), NotAfter: c.NotAfter, Signs: i == 0})
	}
	rot := a.d.authority.Rotation()
	if rot.Step == "" {
		return resp, nil
	}
	waits, err := a.d.rotator.waits(ctx, rot)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	resp.Rotation = &adminapi.CARotation{
		Step: string(rot.Step), Since: rot.Since, Began: rot.Began, OldSHA256: rot.Old, NewSHA256: rot.New,
		Waits: append([]adminapi.CAWait{}, waits...), Passed: append([]string{}, rot.Passed...), Expected: expected(rot, waits),
		Error: a.d.rotator.why(),
	}
	return resp, nil
}

// expected is when a step ends at the latest.
func expected(rot ca.Rotation, waits []adminapi.CAWait) (end time.Time) {
	if !rot.UnderWay() {
		return end
	}
	end = rot.Since
	for _, w := range waits {
		if w.Until.IsZero() {
			return time.Time{}
		}
		end = later(end, w.Until)
	}
	return end.Add(rotationSettle)
}

// CARotate begins the replacement of the root, or changes one that is under way.
func (a *admin) CARotate(ctx context.Context, r *adminapi.CARotateRequest) (*adminapi.CAStatusResponse, error) {
	var err error
	switch {
	case r.Force && r.Cancel:
		return nil, status.Error(codes.InvalidArgument, "a rotation either goes on by force or is cancelled")
	case r.Force:
		err = a.d.rotator.force(ctx)
	case r.Cancel:
		_, err = a.d.authority.CancelRotation(ctx)
	default:
		_, err = a.d.authority.BeginRotation(ctx)
	}
	a.d.loop.reload() // the snapshot holds the roots
	switch {
	case errors.Is(err, ca.ErrNotRotating):
		return nil, status.Error(codes.FailedPrecondition, "no rotation of the root is under way: isthmus ca rotate begins one")
	case errors.Is(err, ca.ErrRotating) && !r.Cancel:
		return nil, status.Error(codes.FailedPrecondition, "a rotation of the root is under way already: isthmus ca status says how far it is, and for whom it waits")
	case err != nil:
		return nil, invalid(err)
	}
	return a.CAStatus(ctx, &adminapi.Empty{})
}

// rotationPatience is how long a step may take before somebody should look.
const rotationPatience = time.Minute

func checkRotation(rot ca.Rotation, waits []adminapi.CAWait, failure string, now time.Time) adminapi.Check {
	c := adminapi.Check{Name: "root rotation", State: "ok", Detail: fmt.Sprintf("%s since %s", rot.Step, rot.Since.UTC().Format(time.RFC3339))}
	if len(waits) > 0 {
		c.Detail += fmt.Sprintf(", waits for %s %s: %s", waits[0].What, waits[0].Name, waits[0].Why)
		if more := len(waits) - 1; more > 0 {
			c.Detail += fmt.Sprintf(", and for %d more", more)
		}
	}
	if failure != "" {
		c.State, c.Detail, c.Remedy = "failed", c.Detail+": "+failure, "mend what is named here; the step is tried again by itself"
	} else if len(waits) > 0 && now.Sub(rot.Since) > rotationPatience {
		c.State, c.Remedy = "warning", "isthmus ca status names all that it waits for"
	}
	return c
}

// why is what went wrong at the last look, empty when nothing did.
func (r *rotator) why() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failure
}

// mayInvite refuses an invitation that nobody could accept: it would pin the new root while a gateway still shows the old one.
func (a *admin) mayInvite() error {
	rot := a.d.authority.Rotation()
	if rot.Step != ca.Activated {
		return nil
	}
	reports := a.d.agents.reports()
	for _, n := range a.d.store.Snapshot().Registry.Nodes {
		if old, _ := under(rot, reports[n.Name].Certs, a.d.now()); n.Role == snapshot.RoleGateway && len(old) > 0 {
			return fmt.Errorf("the mesh's root has just been replaced, and gateway %s has no certificate under the new one yet: try again in a few seconds (isthmus ca status)", n.Name)
		}
	}
	return nil
}
