package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
)

// inventory fetches the services and workloads of the mesh.
func (a *app) inventory(ctx context.Context) (*adminapi.InventoryResponse, error) {
	return ask[adminapi.Empty, adminapi.InventoryResponse](ctx, a, "Inventory", &adminapi.Empty{})
}

// shortened returns short names of the mesh's services by host: payments.default, and also payments if no other
// namespace has one.
func shortened(services []adminapi.ServiceInfo) map[string]string {
	out, times := map[string]string{}, map[string]int{}
	for _, s := range services {
		if !strings.HasPrefix(s.Host, model.ServiceHost(s.Name, s.Namespace, "")) {
			continue
		}
		for _, name := range []string{s.Name, s.Name + "." + s.Namespace, s.Name + "." + s.Namespace + ".svc"} {
			out[name] = s.Host
			times[name]++
		}
		out[s.Namespace+"/"+s.Name] = s.Host
	}
	for name, n := range times {
		if n > 1 {
			delete(out, name)
		}
	}
	return out
}

// findHost returns the host that name stands for. The error for an unknown name suggests a similar one.
func findHost(services []adminapi.ServiceInfo, name string) (string, error) {
	host := strings.TrimSuffix(strings.ToLower(name), ".")
	short := shortened(services)
	if h, ok := short[host]; ok {
		return h, nil
	}
	var hosts, candidates []string
	for _, s := range services {
		if s.Host == host {
			return host, nil
		}
		hosts = append(hosts, s.Host)
	}
	for s := range short {
		candidates = append(candidates, s)
	}
	slices.Sort(candidates)
	near := finding.Nearest(host, slices.Concat(hosts, candidates))
	if h, ok := short[near]; ok {
		near = h
	}
	return "", unknown("service", name, near, "isthmus services")
}

// findWorkload finds a workload by NAMESPACE/NAME, or by NAME if it is unique.
func findWorkload(workloads []adminapi.WorkloadInfo, name string) (adminapi.WorkloadInfo, error) {
	var named []adminapi.WorkloadInfo
	var candidates []string
	for _, w := range workloads {
		if w.Key() == name {
			return w, nil
		}
		if w.Name == name {
			named = append(named, w)
		}
		candidates = append(candidates, w.Key(), w.Name)
	}
	if len(named) == 1 {
		return named[0], nil
	}
	near := finding.Nearest(name, candidates)
	if i := slices.IndexFunc(workloads, func(w adminapi.WorkloadInfo) bool { return w.Name == near }); i >= 0 {
		near = workloads[i].Key()
	}
	return adminapi.WorkloadInfo{}, unknown("workload", name, near, "isthmus services -o wide, isthmus status")
}

func unknown(what, name, near, next string) *Error {
	text := fmt.Sprintf("there is no %s %q", what, name)
	if near != "" {
		text += fmt.Sprintf(" (did you mean %s?)", near)
	}
	return badInput(next, "%s", text)
}

// completion completes names from the control plane, if it answers in time.
func (a *app) completion(names func(context.Context) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		out, err := names(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func serviceHost(s adminapi.ServiceInfo) string { return s.Host }

func each[V any](list []V, name func(V) string) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, name(v))
	}
	return out
}

func (a *app) hosts(ctx context.Context) ([]string, error) {
	inv, err := a.inventory(ctx)
	if err != nil {
		return nil, err
	}
	return each(inv.Services, serviceHost), nil
}

func (a *app) workloadNames(ctx context.Context) ([]string, error) {
	inv, err := a.inventory(ctx)
	if err != nil {
		return nil, err
	}
	return each(inv.Workloads, adminapi.WorkloadInfo.Key), nil
}

func (a *app) workloadsAndHosts(ctx context.Context) ([]string, error) {
	inv, err := a.inventory(ctx)
	if err != nil {
		return nil, err
	}
	return append(each(inv.Workloads, adminapi.WorkloadInfo.Key), each(inv.Services, serviceHost)...), nil
}

func (a *app) proxyNames(ctx context.Context) ([]string, error) {
	s, err := ask[adminapi.Empty, adminapi.StatusResponse](ctx, a, "Status", &adminapi.Empty{})
	if err != nil {
		return nil, err
	}
	return each(s.Proxies, func(p adminapi.ProxyStatus) string { return p.Name }), nil
}

func (a *app) peerNames(ctx context.Context) ([]string, error) {
	peers, err := ask[adminapi.PeerRequest, adminapi.PeerListResponse](ctx, a, "PeerList", &adminapi.PeerRequest{})
	if err != nil {
		return nil, err
	}
	return each(peers.Peers, func(p adminapi.PeerStatus) string { return p.Name }), nil
}
