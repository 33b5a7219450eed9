package admin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/meshd/gateways"
	"isthmus.dev/isthmus/internal/snapshot"
)

// rootWarning is how long before its expiry a check warns about the root.
const rootWarning = 60 * 24 * time.Hour

// fullWarning is how long a check warns after a proxy has refused connections at its limit.
const fullWarning = 5 * time.Minute

// Check performs all health checks, with remedies.
func (a *Admin) Check(ctx context.Context, _ *adminapi.Empty) (*adminapi.CheckResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	now := a.Now()
	checks := []adminapi.Check{
		checkConfig(p.AllFindings()), checkInForce(p.Findings), a.checkState(ctx),
		a.checkRoot(now),
	}
	checks = append(checks, checkPending(a.Pending.Waiting())...)
	if rot := a.Authority.Rotation(); rot.InProgress() {
		waits, err := a.Rotator.Waits(ctx, rot)
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		checks = append(checks, checkRotation(rot, waits, a.Rotator.Failure(), now))
	}
	checks = append(checks, checkProxies(a.proxies(p), now)...)
	checks = append(checks, a.checkPaths(ctx, p.Snapshot)...)
	checks = append(checks, a.checkPeers(ctx, snapshot.Of[*v1alpha1.MeshPeer](p.Snapshot.Config))...)
	return &adminapi.CheckResponse{Checks: checks}, nil
}

// checkPaths checks whether peers' control planes could reach this one through its gateways, even before there are
// peers.
func (a *Admin) checkPaths(ctx context.Context, snap *snapshot.Snapshot) (out []adminapi.Check) {
	errs := a.Gateways.CheckPaths(ctx)
	for _, n := range snap.Registry.Nodes {
		if err, asked := errs[n.Name]; asked {
			out = append(out, gateways.PathCheck(snap, n, err))
		}
	}
	if len(out) == 0 && len(snapshot.Of[*v1alpha1.MeshPeer](snap.Config)) > 0 {
		out = append(out, adminapi.Check{
			Name: "gateways", State: "failed", Detail: "there are peers, but no gateway, so nothing crosses",
			Remedy: "isthmus token create --role gateway --node NAME --identity isthmus-system/gateway, then isthmus gateway",
		})
	}
	return out
}

// checkPending warns about revocations that are not stored yet.
func checkPending(unwritten []string) []adminapi.Check {
	if len(unwritten) == 0 {
		return nil
	}
	return []adminapi.Check{{
		Name: "revocations", State: "failed",
		Detail: "in force, but not in the state yet: " + strings.Join(unwritten, ", "),
		Remedy: "make the state writable again (is a disk full, is the database away?), and do not restart the control plane " +
			"before; it is tried every two seconds",
	}}
}

func checkConfig(fs []finding.Finding) adminapi.Check {
	c := adminapi.Check{Name: "configuration", State: "ok", Detail: "no findings"}
	for _, f := range fs {
		if f.Severity == finding.Info {
			continue
		}
		if c.State == "ok" {
			c.Detail, c.Remedy = f.String(), "isthmus status --findings lists every finding"
		}
		if f.Severity == finding.Error {
			c.State = "failed"
		} else if c.State == "ok" {
			c.State = "warning"
		}
	}
	return c
}

func checkInForce(fs []finding.Finding) adminapi.Check {
	c := adminapi.Check{
		Name: "policy in force", State: "ok", Detail: "nothing is closed for want of an object that can be read",
	}
	n := 0
	for _, f := range fs {
		if f.NotInForce() {
			if n++; n == 1 {
				c.State, c.Detail, c.Remedy = "failed", f.String(), f.Remedy
			}
		}
	}
	if n > 1 {
		c.Detail += fmt.Sprintf(" (and %d more)", n-1)
	}
	return c
}

func (a *Admin) checkState(ctx context.Context) adminapi.Check {
	if err := a.State.Check(ctx); err != nil {
		return adminapi.Check{
			Name: "state", State: "failed", Detail: err.Error(),
			Remedy: "restore " + a.State.Place() + " from a backup before the next restart, which it would not survive",
		}
	}
	return adminapi.Check{
		Name: "state", State: "ok", Detail: a.State.Place() + ": its structure and every row are sound",
	}
}

func (a *Admin) checkRoot(now time.Time) adminapi.Check {
	end := a.Authority.RootNotAfter()
	c := adminapi.Check{Name: "root certificate", State: "ok", Detail: "valid until " + end.UTC().Format(time.RFC3339)}
	if end.Sub(now) < rootWarning {
		c.State, c.Remedy = "warning", "isthmus ca rotate replaces the root without a failed request"
	}
	return c
}

func checkProxies(ps []adminapi.ProxyStatus, now time.Time) []adminapi.Check {
	if len(ps) == 0 {
		return []adminapi.Check{{
			Name: "proxies", State: "warning", Detail: "no node has joined",
			Remedy: "isthmus token create, then isthmus node on each host",
		}}
	}
	var out []adminapi.Check
	for _, p := range ps {
		out = append(out, checkProxy(p, now))
	}
	return out
}

func checkProxy(p adminapi.ProxyStatus, now time.Time) adminapi.Check {
	c := adminapi.Check{Name: "proxy " + p.Name, State: "ok", Detail: "connected, all configuration acknowledged"}
	if !p.Connected {
		c.State, c.Detail, c.Remedy = "failed",
			"is not connected; if its Envoy still runs, it goes on with what it has",
			"see on that host whether the agent runs and what its log says; one that is gone for good: isthmus node revoke NAME"
		return c
	}
	for _, t := range p.Types {
		switch {
		case t.Nack != "":
			c.State, c.Detail, c.Remedy = "failed", fmt.Sprintf("refuses its %s: %s", t.Type,
				t.Nack), "isthmus proxy config "+p.Name+" --type "+t.Type+" names the object each resource comes from"
			return c
		case t.Sent != t.Acked && now.Sub(t.SentAt) > 10*time.Second:
			c.State, c.Detail, c.Remedy = "warning", fmt.Sprintf("has not answered its %s for %s", t.Type,
				now.Sub(t.SentAt).Round(time.Second)), "look at Envoy's log on that host"
		}
	}
	if last := p.Envoy.RefusedLast; now.Sub(last) < fullWarning {
		c.State, c.Remedy = "warning", "look who holds them (ss -tn on that host); raise envoy.maxConnections in its "+
			"settings if they are all wanted"
		c.Detail = fmt.Sprintf("has refused %d connections for want of room, last at %s", p.Envoy.Refused,
			last.UTC().Format(time.RFC3339))
	}
	for _, cert := range p.Certs {
		if life := cert.NotAfter.Sub(cert.NotBefore); cert.NotAfter.Sub(now) < life/4 {
			c.State, c.Detail, c.Remedy = "warning", fmt.Sprintf(
				"the certificate of %s ends at %s and is not renewed", cert.SPIFFEID,
				cert.NotAfter.UTC().Format(time.RFC3339)), "look at the agent's log on that host"
		}
	}
	return c
}

// checkPeers probes each peer that has no other fault, so that faults since the last exchange show, too.
func (a *Admin) checkPeers(ctx context.Context, peers []*v1alpha1.MeshPeer) []adminapi.Check {
	out := make([]adminapi.Check, len(peers))
	var g errgroup.Group
	g.SetLimit(16)
	for n, p := range peers {
		g.Go(func() error {
			out[n] = checkPeer(p.Name, a.Federation.ConditionsOf(p))
			if out[n].State != "ok" {
				return nil
			}
			// otherwise it was probed just now
			if probe, err := a.Federation.Probe(ctx, p.Name, federation.Target{}); err == nil {
				out[n] = checkPath(out[n], probe.Legs)
			}
			return nil
		})
	}
	_ = g.Wait() // none fails
	return out
}

// checkPath checks whether a peer's gateway is reachable. What is behind it may be closed to probes.
func checkPath(c adminapi.Check, legs []adminapi.ProbeLeg) adminapi.Check {
	for _, l := range legs {
		if l.State == adminapi.LegFailed && (l.Step == "connect" || l.Step == "handshake") {
			c.State, c.Detail, c.Remedy = "warning", fmt.Sprintf("%s of %s: %s", l.Step, l.To, l.Detail), l.Remedy
			break
		}
	}
	return c
}

func checkPeer(name string, conditions []adminapi.Condition) adminapi.Check {
	c := adminapi.Check{Name: "peer " + name, State: "ok", Detail: "trusted, fresh, in step"}
	good := map[string]string{
		"TrustEstablished": "True", "BundleFresh": "True", "CatalogueSynced": "True",
		"DataPathReady": "True", "Expiring": "False", "Suspended": "False", "Revoked": "False",
	}
	for _, cond := range conditions {
		if want, known := good[cond.Type]; known && cond.Status != want {
			return adminapi.Check{
				Name: c.Name, State: "warning",
				Detail: cond.Type + " is " + cond.Status + ": " + cond.Message, Remedy: "isthmus peer status " + name,
			}
		}
	}
	return c
}
