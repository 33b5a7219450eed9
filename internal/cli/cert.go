package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) certCmd() *cobra.Command {
	return family("cert", "Certificates in use", a.certListCmd())
}

func (a *app) certListCmd() *cobra.Command {
	var expiring string
	cmd := &cobra.Command{
		Use:     "list",
		Example: "  isthmus cert list --expiring 7d",
		Short:   "Certificates in use at the nodes, sorted by expiry",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			within, err := days(expiring)
			if err != nil {
				return usage(cmd, "--expiring: %s", err)
			}
			resp, err := ask[adminapi.Empty, adminapi.CertListResponse](cmd.Context(), a, "CertList", &adminapi.Empty{})
			if err != nil {
				return err
			}
			resp.Certs = ending(resp.Certs, a.Now(), within)
			return a.print(resp, func(w when) string { return certsText(resp.Certs, w) })
		},
	}
	cmd.Flags().StringVar(&expiring, "expiring", "", "only those that expire within this time, for example 30m or 7d")
	return a.client(cmd)
}

// ending returns the certificates that expire within a duration (all if it is zero), sorted by expiry.
func ending(certs []adminapi.NodeCert, now time.Time, within time.Duration) []adminapi.NodeCert {
	certs = slices.DeleteFunc(slices.Clone(certs), func(c adminapi.NodeCert) bool {
		return within > 0 && c.NotAfter.Sub(now) > within
	})
	slices.SortFunc(certs, func(a, b adminapi.NodeCert) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Node, b.Node), cmp.Compare(a.SPIFFEID, b.SPIFFEID),
			cmp.Compare(a.Serial, b.Serial))
	})
	return certs
}

func certsText(certs []adminapi.NodeCert, w when) string {
	if len(certs) == 0 {
		return "No certificate.\n"
	}
	t := newTable("NODE", "IDENTITY", "ENDS", "SERIAL", "SHA-256")
	for _, c := range certs {
		fingerprint := c.Fingerprint
		if !w.wide {
			fingerprint = shortFingerprint(fingerprint)
		}
		t.row(c.Node, c.SPIFFEID, w.future(c.NotAfter), c.Serial, fingerprint)
	}
	return t.String()
}

// days parses a duration in which "d" is 24 hours. Empty is zero.
func days(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if n, ok := strings.CutSuffix(s, "d"); ok {
		d, err := strconv.Atoi(n)
		if err != nil || d <= 0 || d > 36500 {
			return 0, fmt.Errorf("%q is not a time such as 7d, 12h or 30m", s)
		}
		return time.Duration(d) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a time such as 7d, 12h or 30m", s)
	}
	return d, nil
}
