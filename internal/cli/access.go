package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) accessCmd() *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Who may call whom, and by which policies",
		Long: `Who may call whom, and by which policies. A rule may narrow an allowed pair further, to methods, paths or addresses;
a pair that is not listed cannot talk at all: no policy allows it, or a Sidecar hides it. Callers at peers are listed by
what both the export and the workload's own policies let in; "*" at the end stands for all that begin so.`,
		Example: `  isthmus access
  isthmus access --to payments.default.svc.cluster.local`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := ask[adminapi.Empty, adminapi.AccessResponse](cmd.Context(), a, "Access", &adminapi.Empty{})
			if err != nil {
				return err
			}
			if from+to != "" {
				inv, err := a.inventory(cmd.Context())
				if err != nil {
					return err
				}
				if resp.Edges, err = filterEdges(resp.Edges, *inv, from, to); err != nil {
					return err
				}
			}
			return a.print(resp, func(when) string {
				if len(resp.Edges) == 0 && from+to != "" {
					return noEdgesText(from, to)
				}
				return accessText(resp.Edges)
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "only this caller, NAMESPACE/WORKLOAD")
	cmd.Flags().StringVar(&to, "to", "", "only this destination, HOST or HOST:PORT")
	// fails only for an unknown flag
	_ = cmd.RegisterFlagCompletionFunc("from", a.completion(a.workloadNames))
	_ = cmd.RegisterFlagCompletionFunc("to", a.completion(a.hosts))
	return a.client(cmd)
}

// filterEdges returns the edges of a caller, a destination, or both. An unknown name is an error.
func filterEdges(
	edges []adminapi.AccessEdge, inv adminapi.InventoryResponse, from, to string,
) ([]adminapi.AccessEdge, error) {
	if from != "" {
		w, err := findWorkload(inv.Workloads, from)
		if err != nil {
			return nil, err
		}
		edges = slices.DeleteFunc(edges, func(e adminapi.AccessEdge) bool { return e.From != w.Key() })
	}
	if to == "" {
		return edges, nil
	}
	name, port, onePort := strings.Cut(to, ":")
	host, err := findHost(inv.Services, name)
	if err != nil {
		return nil, err
	}
	if onePort {
		if err := servesPort(inv.Services, host, port); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(edges, func(e adminapi.AccessEdge) bool {
		return e.To != host+":"+port && (onePort || !strings.HasPrefix(e.To, host+":"))
	}), nil
}

func servesPort(services []adminapi.ServiceInfo, host, port string) error {
	var ports []string
	for _, s := range services {
		if s.Host != host {
			continue
		}
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprint(p.Number))
		}
	}
	if slices.Contains(ports, port) {
		return nil
	}
	return badInput("isthmus services", "%s has no port %s; it has %s", host, port,
		cmp.Or(strings.Join(ports, ", "), "none"))
}

func noEdgesText(from, to string) string {
	switch {
	case to == "":
		return from + " may call nothing.\n  Next: isthmus describe " + from + "\n"
	case from == "":
		return "Nobody may call " + to + ".\n  Next: isthmus describe " + to + "\n"
	}
	return from + " may not call " + to + ".\n  Next: isthmus describe " + to + "\n"
}

func accessText(edges []adminapi.AccessEdge) string {
	if len(edges) == 0 {
		return "No workload may call another: no policy in force allows it between workloads that are registered.\n  Next: isthmus status --findings\n"
	}
	t := newTable("FROM", "TO", "BY")
	for _, e := range edges {
		t.row(e.From, e.To, strings.Join(e.By, ", "))
	}
	return t.String()
}
