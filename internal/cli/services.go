package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) servicesCmd() *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use:   "services",
		Short: "What can be called, who serves it, how many may call",
		Example: `  isthmus services
  isthmus services -n default -o wide`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			inv, err := a.inventory(cmd.Context())
			if err != nil {
				return err
			}
			services := slices.DeleteFunc(inv.Services, func(s adminapi.ServiceInfo) bool {
				return namespace != "" && s.Namespace != namespace
			})
			return a.print(struct {
				Services []adminapi.ServiceInfo `json:"services"`
			}{services}, func(w when) string { return servicesText(services, w) })
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "only this namespace's")
	return a.client(cmd)
}

func servicesText(services []adminapi.ServiceInfo, w when) string {
	if len(services) == 0 {
		return "Nothing can be called: there is no Service, ServiceEntry or FederatedImport here.\n" +
			"  Next: write one into the configuration folder (docs/kinds)\n"
	}
	head := []string{"HOST", "PORT", "READY", "CALLERS"}
	if w.wide {
		head = []string{"HOST", "PORT", "READY", "CALLERS", "ADDRESS", "MTLS", "FROM"}
	}
	t := newTable(head...)
	for _, s := range services {
		if len(s.Ports) == 0 {
			t.row(s.Host, "none", "-", "-")
		}
		for _, p := range s.Ports {
			cells := []string{s.Host, fmt.Sprintf("%d/%s", p.Number, p.Protocol), served(s, p, ""), callerCount(p)}
			if w.wide {
				cells = append(cells, strings.Join(s.Addresses, " "), yesNo(p.MTLS || len(p.Peers) > 0),
					strings.Join(s.From, ", "))
			}
			t.row(cells...)
		}
	}
	return t.String()
}

// served formats how many endpoints are ready (followed by suffix), and which peers serve as well or instead.
func served(s adminapi.ServiceInfo, p adminapi.ServicePort, suffix string) string {
	var parts []string
	if len(p.Endpoints) > 0 || len(p.Peers) == 0 && !imported(s) {
		parts = append(parts, fmt.Sprintf("%d of %d", p.Ready(), len(p.Endpoints))+suffix)
	}
	for _, peer := range p.Peers {
		if peer.Unready != "" {
			parts = append(parts, "peer "+peer.Peer+" not ready")
		} else {
			parts = append(parts, "peer "+peer.Peer+suffix)
		}
	}
	if len(parts) == 0 {
		return "no peer"
	}
	return strings.Join(parts, ", ")
}

func imported(s adminapi.ServiceInfo) bool {
	return slices.ContainsFunc(s.From, func(f string) bool { return strings.HasPrefix(f, "FederatedImport ") })
}

func callerCount(p adminapi.ServicePort) string {
	if len(p.Callers) == 0 {
		return "nobody"
	}
	return fmt.Sprint(len(p.Callers))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (a *app) endpointsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "endpoints [HOST]",
		Short: "Where each service is served, and whether it is ready",
		Example: `  isthmus endpoints
  isthmus endpoints payments.default`,
		Args: optionalArg("a service's host"),
		RunE: func(cmd *cobra.Command, args []string) error {
			inv, err := a.inventory(cmd.Context())
			if err != nil {
				return err
			}
			services := inv.Services
			if len(args) > 0 {
				host, err := findHost(services, args[0])
				if err != nil {
					return err
				}
				services = slices.DeleteFunc(services, func(s adminapi.ServiceInfo) bool { return s.Host != host })
			}
			rows := endpointRows(services)
			return a.print(struct {
				Endpoints []endpointRow `json:"endpoints"`
			}{rows}, func(w when) string { return endpointsText(rows, w) })
		},
	}
	cmd.ValidArgsFunction = a.completion(a.hosts)
	return a.client(cmd)
}

// endpointRow is one endpoint or peer that serves a port.
type endpointRow struct {
	Host string `json:"host"`
	Port uint16 `json:"port"`
	adminapi.ServiceEndpoint
	Peer string `json:"peer,omitempty"`
}

func endpointRows(services []adminapi.ServiceInfo) []endpointRow {
	var out []endpointRow
	for _, s := range services {
		for _, p := range s.Ports {
			for _, e := range p.Endpoints {
				out = append(out, endpointRow{Host: s.Host, Port: p.Number, ServiceEndpoint: e})
			}
			for _, peer := range p.Peers {
				out = append(out, endpointRow{
					Host: s.Host, Port: p.Number, Peer: peer.Peer,
					ServiceEndpoint: adminapi.ServiceEndpoint{Address: peer.Name, Ready: peer.Unready == ""},
				})
			}
		}
	}
	return out
}

// readiness describes readiness in one or two words.
func readiness(ready, silent bool) string {
	switch {
	case silent:
		return "node silent"
	case ready:
		return "ready"
	}
	return "not ready"
}

func endpointsText(rows []endpointRow, w when) string {
	if len(rows) == 0 {
		return "Nobody serves it: no workload that is registered is selected, and no peer serves it.\n" +
			"  Next: isthmus status --findings, isthmus status\n"
	}
	head := []string{"HOST", "ADDRESS", "STATE", "SERVED BY"}
	if w.wide {
		head = append(head, "NODE", "ALSO AT")
	}
	t := newTable(head...)
	for _, r := range rows {
		state, by := readiness(r.Ready, r.Silent), r.Workload
		if r.Peer != "" {
			by = "peer " + r.Peer
			if r.Ready {
				state = "-" // only the peer knows
			}
		}
		cells := []string{fmt.Sprintf("%s:%d", r.Host, r.Port), r.Address, state, by}
		if w.wide {
			cells = append(cells, r.Node, r.Other)
		}
		t.row(cells...)
	}
	return t.String()
}
