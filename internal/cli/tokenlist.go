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
		Use:     "list",
		Example: "  isthmus token list --all",
		Short:   "Join tokens that are open: for whom, made by whom",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := ask[adminapi.Empty, adminapi.TokenListResponse](cmd.Context(), a, "TokenList",
				&adminapi.Empty{})
			if err != nil {
				return err
			}
			if !all {
				resp.Tokens = openTokens(resp.Tokens)
			}
			return a.print(resp, func(w when) string { return tokensText(resp.Tokens, w) })
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "list also those that were used, cancelled or expired in the last day")
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
		return "No join token; isthmus token list --all has those that ended in the last day.\n"
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
		if w.wide {
			for _, p := range tok.Grant.Addresses {
				ids = append(ids, p.String())
			}
		}
		if len(ids) > 3 && !w.wide {
			ids = append(ids[:3:3], fmt.Sprintf("and %d more", len(ids)-3))
		}
		t.row(tok.ID, tok.Node, string(tok.Role), state, w.future(tok.Expires), w.past(tok.Created), tok.MadeBy,
			strings.Join(ids, " "))
	}
	return t.String()
}

func cancelledText(maker string, n int) string {
	if n == 0 && maker != "" {
		return fmt.Sprintf("%q made no join token that is open; isthmus token list has the makers under BY.\n",
			clean(maker, oneLine))
	}
	return fmt.Sprintf("Made %s void.\n", plural(n, "join token"))
}

func (a *app) tokenCancelCmd() *cobra.Command {
	var req adminapi.TokenCancelRequest
	cmd := &cobra.Command{
		Use:     "cancel [ID]",
		Short:   "Make join tokens void before their use",
		Example: "  isthmus token cancel 3f9c2a17be540d86\n  isthmus token cancel --made-by 'administrator ada'",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (req.MadeBy != "") {
				return usage(cmd,
					"give a token's ID, or --made-by with who made those that are to be cancelled; isthmus token list shows both")
			}
			if len(args) == 1 {
				req.ID = args[0]
			}
			resp, err := ask[adminapi.TokenCancelRequest, adminapi.TokenCancelResponse](cmd.Context(), a, "TokenCancel",
				&req)
			if err != nil {
				return err
			}
			a.warnUnwritten(resp.Ended)
			return a.print(resp, func(when) string { return cancelledText(req.MadeBy, resp.Cancelled) })
		},
	}
	cmd.Flags().StringVar(&req.MadeBy, "made-by", "",
		"cancel all open tokens of this maker, named as isthmus token list names them")
	return a.client(cmd)
}
