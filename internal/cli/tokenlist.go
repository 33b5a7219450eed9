package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) tokenListCmd() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Join tokens that are open: for whom, made by whom; never their secrets",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := ask[adminapi.Empty, adminapi.TokenListResponse](cmd.Context(), a, "TokenList", &adminapi.Empty{})
			if err != nil {
				return err
			}
			if !all {
				resp.Tokens = openTokens(resp.Tokens)
			}
			return a.print(resp, func(w when) string { return tokensText(resp.Tokens, w) })
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "those too that were used, cancelled or have expired in the last day")
	return a.client(cmd)
}

func openTokens(all []adminapi.TokenInfo) []adminapi.TokenInfo {
	open := []adminapi.TokenInfo{}
	for _, t := range all {
		if t.State == "open" {
			open = append(open, t)
		}
	}
	return open
}

func tokensText(tokens []adminapi.TokenInfo, w when) string {
	if len(tokens) == 0 {
		return "No join token.\n"
	}
	t := newTable("ID", "NODE", "ROLE", "STATE", "ENDS", "MADE", "BY", "GRANTS")
	for _, tok := range tokens {
		state := tok.State
		if tok.UsedBy != "" {
			state += " from " + tok.UsedBy
		}
		ids := slices.Clone(tok.Grant.Identities)
		for _, g := range tok.Grant.Workloads {
			ids = append(ids, g.Namespace+"/"+g.Name)
		}
		if len(ids) > 3 && !w.wide {
			ids = append(ids[:3:3], fmt.Sprintf("and %d more", len(ids)-3))
		}
		t.row(tok.ID, tok.Node, string(tok.Role), state, w.future(tok.Expires), w.past(tok.Created), tok.MadeBy, strings.Join(ids, " "))
	}
	return t.String()
}

func (a *app) tokenCancelCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cancel ID",
		Short:   "Make a join token void before its use; isthmus token list shows the IDs",
		Example: "  isthmus token cancel 3f9c2a17be540d86",
		Args:    oneArg("the token's ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := ask[adminapi.TokenIDRequest, adminapi.Ended](cmd.Context(), a, "TokenCancel", &adminapi.TokenIDRequest{ID: args[0]})
			if err != nil {
				return err
			}
			a.warnUnwritten(*resp)
			return a.print(resp, func(when) string { return fmt.Sprintf("Join token %s is void.\n", clean(args[0], oneLine)) })
		},
	}
	return a.client(cmd)
}
