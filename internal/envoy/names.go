package envoy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/wellknown"
)

func bundleName(td string) string { return wellknown.BundleSecretPrefix + td }

// SetName returns the name of an endpoint set in EDS: "host:port", then "{labels}" of a subset, then "@proxy" for a
// proxy's own form.
func SetName(s model.EndpointSet) string {
	name := s.Host + ":" + strconv.Itoa(int(s.Port))
	if s.Subset != "" {
		name += "{" + s.Subset + "}"
	}
	if s.Proxy != "" {
		name += "@" + s.Proxy
	}
	return name
}

func outboundListener(w *model.Workload) string { return wellknown.OutboundListener + w.ID.String() }

func inboundListener(w *model.Workload) string { return wellknown.InboundListener + w.ID.String() }

// handOverListener returns the counterpart of inboundListener for connections from inside the proxy.
func handOverListener(id model.WorkloadID) string { return "handover/" + id.String() }

// chainName names the chain of a destination by the name under which callers know it.
func chainName(o model.Outbound) string { return fmt.Sprintf("%s:%d", o.Service.Host, o.Port.Number) }

// chainOf names the routes of one workload's Outbound.
func chainOf(w *model.Workload, o model.Outbound) string {
	return clusterOf(w.ID.String(), chainName(o))
}

// destinationName names the cluster of one workload's destination.
func destinationName(w *model.Workload, d *model.Destination) string {
	return clusterOf(w.ID.String(), SetName(d.Called()))
}

func clusterOf(workload, chain string) string { return workload + ">" + chain }

func inboundName(w *model.Workload, port uint16) string { return fmt.Sprintf("%s:%d", w.ID, port) }

// egressSNI returns the server name that a local caller of an import uses at its own gateway. For raw TCP it starts
// with the caller's name, since each caller has its own chain there.
func egressSNI(called model.EndpointSet, p model.Protocol, caller string) string {
	name := fmt.Sprintf("p%d.%s", called.Port, called.Host)
	if p.IsHTTP() {
		return name
	}
	return callerSNI(caller) + "." + name
}

// callerSNI returns the server name that a caller uses for a raw TCP server: its own identity, hashed. The server has a
// chain for each caller that its policies name. That chain's certificate check admits only that caller, so a false name
// gains nothing.
func callerSNI(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16]) + wellknown.CallerName
}
