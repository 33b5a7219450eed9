package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) importsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "imports [PEER]",
		Example: "  isthmus imports\n  isthmus imports bank",
		Short:   "What this mesh uses of its peers",
		Args:    optionalArg("a peer's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := ask[adminapi.PeerRequest, adminapi.ImportsResponse](cmd.Context(), a, "Imports", peerArg(args))
			if err != nil {
				return err
			}
			return a.print(resp, func(w when) string { return importsText(resp.Imports, w) })
		},
	}
	cmd.ValidArgsFunction = a.completion(a.peerNames)
	return a.client(cmd)
}

func importsText(imports []adminapi.ImportStatus, w when) string {
	if len(imports) == 0 {
		return "This mesh imports nothing. isthmus catalogue shows what peers offer; to use it: isthmus import PEER/NAME.\n"
	}
	head := []string{"IMPORT", "HOST", "PROTOCOL", "CALLERS", "STATE", "FROM"}
	if w.wide {
		head = append(head, "ADDRESS")
	}
	t := newTable(head...)
	for _, i := range imports {
		callers := strings.Join(i.Callers, " ")
		if callers == "" {
			callers = "nobody"
		}
		cells := []string{
			i.Name, fmt.Sprintf("%s:%d", i.Host, i.Port), i.Protocol, callers, i.State,
			strings.Join(i.From, ", "),
		}
		if w.wide {
			cells = append(cells, i.VIP)
		}
		t.row(cells...)
	}
	return t.String()
}
