package compile

import (
	"fmt"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/model"
)

// sidecar limits what the workloads of a namespace see of what they may call. A service is visible if some host in
// shown matches and none in hidden does (Istio: Sidecar, IstioEgressListener.hosts). The root namespace's Sidecar
// applies to namespaces without their own; nil shows everything.
type sidecar struct{ shown, hidden []sidecarHost }

// sidecarHost matches services by namespace and host.
type sidecarHost struct {
	namespace string // "." is the caller's namespace, "*" any
	host      string // "*" is any host, "*.example.com" any below it
}

// sidecars finds the Sidecar of the namespace: the oldest counts.
func (u *unit) sidecars() {
	var first age
	for age, s := range oldestFirst[*networking.Sidecar](u.objects) {
		u.guarded(age.key, func() {
			u.istioRoot(u.mesh, age.key)
			if u.sidecar != nil {
				u.find(age.key, "ISM0034", "metadata.name",
					fmt.Sprintf("%s speaks for namespace %s already; this one is ignored", u.ref(first.key),
						u.namespace))
				return
			}
			first, u.sidecar = age, sidecarOf(s)
		})
	}
}

func sidecarOf(s *networking.Sidecar) *sidecar {
	out := &sidecar{}
	for _, l := range s.Spec.Egress {
		for _, h := range l.Hosts {
			namespace, host, _ := strings.Cut(h, "/")
			named := sidecarHost{namespace, model.EntryHost(host)}
			if rest, away := strings.CutPrefix(namespace, "~"); !away {
				out.shown = append(out.shown, named)
				continue
			} else if named.namespace = rest; rest == "" {
				named.namespace = "*"
			}
			out.hidden = append(out.hidden, named)
		}
	}
	return out
}

// shows reports whether callers of a namespace see a service.
func (s *sidecar) shows(caller string, svc *model.Service) bool {
	return s == nil || names(s.shown, caller, svc) && !names(s.hidden, caller, svc)
}

func names(hosts []sidecarHost, caller string, svc *model.Service) bool {
	for _, h := range hosts {
		if h.names(caller, svc) {
			return true
		}
	}
	return false
}

func (h sidecarHost) names(caller string, svc *model.Service) bool {
	switch h.namespace {
	case "*", svc.ID.Namespace:
	case ".":
		if caller != svc.ID.Namespace {
			return false
		}
	default:
		return false
	}
	suffix, wild := strings.CutPrefix(h.host, "*")
	return h.host == svc.Host || wild && strings.HasSuffix(svc.Host, suffix)
}
