package check_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	networkingapi "istio.io/api/networking/v1alpha3"
	securityapi "istio.io/api/security/v1beta1"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/check"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

// TestObject: values are judged that no document was ever read for.
func TestObject(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "default", Name: "x"}
	for name, tt := range map[string]struct {
		object metav1.Object
		want   []string // code and field
	}{
		"nothing wrong": {
			&security.AuthorizationPolicy{
				ObjectMeta: meta,
				Spec:       securityapi.AuthorizationPolicy{Rules: []*securityapi.Rule{{}}},
			},
			nil,
		},
		"an action that is not carried out": {
			&security.AuthorizationPolicy{
				ObjectMeta: meta, Spec: securityapi.AuthorizationPolicy{Action: securityapi.AuthorizationPolicy_CUSTOM},
			},
			[]string{"ISM-SCH20 spec.action"},
		},
		"an action of another time": {
			&security.AuthorizationPolicy{ObjectMeta: meta, Spec: securityapi.AuthorizationPolicy{Action: 9}},
			[]string{"ISM-SCH20 spec.action"},
		},
		"a mode of another time": {
			&security.PeerAuthentication{
				ObjectMeta: meta,
				Spec:       securityapi.PeerAuthentication{Mtls: &securityapi.PeerAuthentication_MutualTLS{Mode: 9}},
			},
			[]string{"ISM-SCH18 spec.mtls.mode"},
		},
		"a resolution that is not carried out": {
			&networking.ServiceEntry{ObjectMeta: meta, Spec: networkingapi.ServiceEntry{
				Hosts: []string{"*.example.com"}, Ports: []*networkingapi.ServicePort{{Number: 443, Name: "tls"}},
				Addresses: []string{"everywhere"},
			}},
			[]string{"ISM-SCH20 spec.hosts[0]", "ISM-SCH01 spec.addresses[0]", "ISM-SCH20 spec.resolution"},
		},
		"a WorkloadEntry under a host name": {
			&networking.WorkloadEntry{ObjectMeta: meta, Spec: networkingapi.WorkloadEntry{Address: "db.example.com"}},
			[]string{"ISM-SCH01 spec.address"},
		},
		"an empty list that would mean anybody": {
			&v1alpha1.FederatedExport{ObjectMeta: meta, Spec: v1alpha1.FederatedExportSpec{
				To: []v1alpha1.ExportTo{{Peer: "bank", Rules: []v1alpha1.ExportRule{{Callers: []string{}}}}},
			}},
			[]string{"ISM-SCH01 spec.to[0].rules[0].callers"},
		},
		"metadata": {
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
				Namespace: "of-its-own", Name: "a.b", Labels: map[string]string{"team": "no spaces"},
			}},
			[]string{"ISM-SCH15 metadata.name", "ISM-SCH15 metadata.namespace", "ISM-SCH15 metadata.labels.team"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range check.Object(tt.object) {
				got = append(got, fmt.Sprintf("%s %s", f.Code, f.Field))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

// TestEveryKind: each kind has a check, which says what is wrong with an object in which nothing is written.
func TestEveryKind(t *testing.T) {
	for _, k := range kind.All {
		t.Run(k.Name, func(t *testing.T) {
			defer func() {
				if fault := recover(); fault != nil {
					t.Errorf("an object cannot be judged (%v): write internal/check/%s.go and its row of checks in check.go",
						fault, strings.ToLower(k.Name))
				}
			}()
			found := check.Object(reflect.New(k.Type).Interface().(metav1.Object))
			if !slices.ContainsFunc(found, func(f finding.Finding) bool { return f.Field == "metadata.name" }) {
				t.Errorf("found in an empty object: %v", found)
			}
		})
	}
}
