package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/retry"
)

// beginRotations starts a root rotation in both meshes.
func beginRotations(ctx context.Context, w *world) error {
	for _, m := range w.plan.meshes {
		if _, err := w.rotate(ctx, m, adminapi.CARotateRequest{}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) rotate(ctx context.Context, m mesh, r adminapi.CARotateRequest) (*adminapi.CAStatusResponse, error) {
	return call[adminapi.CARotateRequest, adminapi.CAStatusResponse](ctx, w.admin(m), "CARotate", &r)
}

// endRotations waits until both rotations are complete.
func endRotations(ctx context.Context, w *world) error {
	for _, m := range w.plan.meshes {
		if err := retry.Until(ctx, 90*time.Second, 200*time.Millisecond,
			func(ctx context.Context) error { return w.rotated(ctx, m) }); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) rotated(ctx context.Context, m mesh) error {
	st, err := call[adminapi.Empty, adminapi.CAStatusResponse](ctx, w.admin(m), "CAStatus", &adminapi.Empty{})
	switch {
	case err != nil:
		return err
	case st.Rotation == nil:
		return fmt.Errorf("%s knows of no rotation", m.name)
	case st.Rotation.Step == "done" && len(st.Roots) == 1:
		return nil
	}
	waits := st.Rotation.Waits
	left := slices.DeleteFunc(slices.Clone(waits),
		func(c adminapi.CAWait) bool { return c.What == "administrator" && c.Name == soakAdmin })
	if len(waits) > 0 && len(left) == 0 { // the soak test makes new credentials whenever it needs them
		_, err = w.rotate(ctx, m, adminapi.CARotateRequest{Force: true})
	}
	return errors.Join(fmt.Errorf("the rotation of %s is at %s and waits for %v %s", m.name, st.Rotation.Step, left,
		st.Rotation.Error), err)
}

// churnEndpoints changes the address of another service's server. Everything learns of it, but the load does not use
// it.
func churnEndpoints(ctx context.Context, w *world) error {
	m := w.retail()
	for n := range 200 {
		text := fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: churn, namespace: default}
spec:
  selector: {app: churn}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: churn, namespace: default}
spec: {address: 10.72.0.%d, labels: {app: churn}, serviceAccount: churn}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: churn, namespace: default}
spec:
  selector: {matchLabels: {app: churn}}
  rules: [{from: [{source: {principals: [retail.example/ns/default/sa/storefront]}}]}]
`, 100+n%100)
		if err := writeFile(w.files.mesh(m.name, "config", "churn.yaml"), []byte(text)); err != nil {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// churnPolicies repeatedly changes a policy that applies to the load, without ever denying it.
func churnPolicies(ctx context.Context, w *world) error {
	m := w.cards()
	for n := range 50 {
		text := fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: soak, namespace: default}
spec:
  action: DENY
  selector: {matchLabels: {app: payments}}
  rules: [{to: [{operation: {paths: ["/forbidden/%d"]}}]}]
`, n)
		if err := writeFile(w.files.mesh(m.name, "config", "soak.yaml"), []byte(text)); err != nil {
			return err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
