package compile

import (
	"net/netip"
	"testing"

	istiosec "istio.io/api/security/v1beta1"
	istiotype "istio.io/api/type/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// TestWhatCannotBeEnforcedCloses: a policy that no check refused and that cannot be enforced closes what it selects,
// whatever other policies allow.
func TestWhatCannotBeEnforcedCloses(t *testing.T) {
	bank := &istiotype.WorkloadSelector{MatchLabels: map[string]string{"app": "bank"}}
	anybody := []*istiosec.Rule{{}}
	for name, tt := range map[string]struct {
		spec   *istiosec.AuthorizationPolicy
		field  string
		closes []string
	}{
		"an action of another time": {
			&istiosec.AuthorizationPolicy{Action: 9, Selector: bank, Rules: anybody}, "spec.action", []string{"bank"},
		},
		"CUSTOM": {
			&istiosec.AuthorizationPolicy{Action: istiosec.AuthorizationPolicy_CUSTOM, Selector: bank, Rules: anybody},
			"spec.action",
			[]string{"bank"},
		},
		"AUDIT of the whole namespace": {
			&istiosec.AuthorizationPolicy{Action: istiosec.AuthorizationPolicy_AUDIT, Rules: anybody},
			"spec.action",
			[]string{"bank", "web"},
		},
		"targetRefs, whatever they mean": {
			&istiosec.AuthorizationPolicy{
				Action: istiosec.AuthorizationPolicy_DENY, Selector: bank, Rules: anybody,
				TargetRefs: []*istiotype.PolicyTargetReference{{Kind: "Service", Name: "web"}},
			},
			"spec.targetRefs",
			[]string{"bank", "web"},
		},
		"ALLOW under a condition that nobody knows": {
			&istiosec.AuthorizationPolicy{
				Selector: bank,
				Rules: []*istiosec.Rule{{When: []*istiosec.Condition{{
					Key:    "moon.phase",
					Values: []string{"full"},
				}}}},
			},
			"spec.rules[0]",
			[]string{"bank"},
		},
		"DENY of an address that is none": {
			&istiosec.AuthorizationPolicy{
				Action: istiosec.AuthorizationPolicy_DENY, Selector: bank,
				Rules: []*istiosec.Rule{{From: []*istiosec.Rule_From{{
					Source: &istiosec.Source{IpBlocks: []string{"10.0.0.1-9"}},
				}}}},
			},
			"spec.rules[0]",
			[]string{"bank"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			policy := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "odd"}}
			tt.spec.DeepCopyInto(&policy.Spec)
			mesh, findings := Mesh(twoWorkloads(policy))
			closed := []string{}
			for _, name := range []string{"bank", "web"} {
				for _, in := range mesh.Workloads[model.WorkloadID{Namespace: "default", Name: name}].Inbound {
					if len(in.Policies.Deny) == 1 && len(in.Policies.Deny[0].Rules) == 1 &&
						len(in.Policies.Deny[0].Rules[0].From)+len(in.Policies.Deny[0].Rules[0].When) == 0 {
						closed = append(closed, name)
					}
				}
			}
			if len(closed) != len(tt.closes) || closed[0] != tt.closes[0] {
				t.Errorf("closed are %v, want %v", closed, tt.closes)
			}
			if len(findings) != 1 || findings[0].Code != "ISM0042" || findings[0].Field != tt.field {
				t.Errorf("findings %v, want ISM0042 at %s", findings, tt.field)
			}
		})
	}
}

// twoWorkloads are bank and web, behind a Service each, with a policy that allows everybody, and another one.
func twoWorkloads(policy *security.AuthorizationPolicy) *snapshot.Snapshot {
	objects := []metav1.Object{
		&v1alpha1.Mesh{
			ObjectMeta: metav1.ObjectMeta{Name: "shop"},
			Spec:       v1alpha1.MeshSpec{TrustDomain: "shop.example"},
		},
		&security.AuthorizationPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "all"},
			Spec:       istiosec.AuthorizationPolicy{Rules: []*istiosec.Rule{{}}},
		},
	}
	if policy != nil {
		objects = append(objects, policy)
	}
	registry := &snapshot.Registry{Nodes: []snapshot.Node{{Name: "a", Role: snapshot.RoleNode}}}
	for i, name := range []string{"bank", "web"} {
		objects = append(objects, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Name: "http", Port: 8080}},
			},
		})
		registry.Workloads = append(registry.Workloads, snapshot.Workload{
			Namespace: "default", Name: name, ServiceAccount: name, Node: "a", Ready: true,
			Labels:    map[string]string{"app": name},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})},
		})
	}
	return &snapshot.Snapshot{
		Roots: []byte("roots"), Config: &snapshot.Config{Objects: snapshot.ObjectsOf(objects...)}, Registry: registry,
	}
}

// TestUnknownModeIsStrict: a mode that nobody knows takes no plaintext, whatever the mesh does.
func TestUnknownModeIsStrict(t *testing.T) {
	snap := twoWorkloads(nil)
	m := snap.Config.Mesh().DeepCopy()
	m.Spec.MTLS = v1alpha1.MTLSPermissive
	snap.Config = snap.Config.With(snapshot.PutAll[metav1.Object](m, &security.PeerAuthentication{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "odd"},
		Spec:       istiosec.PeerAuthentication{Mtls: &istiosec.PeerAuthentication_MutualTLS{Mode: 9}},
	}))
	mesh, _ := Mesh(snap)
	if got := mesh.Workloads[model.WorkloadID{Namespace: "default", Name: "web"}].Mode; got != model.Strict {
		t.Errorf("its mode is %v, want STRICT", got)
	}
}
