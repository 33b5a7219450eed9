package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/node/accesslog"
)

// runFolders is the parent of the run directories of agents started by the packages' units.
const runFolders = "/run/isthmus"

// logPoll is how often followed files are read.
const logPoll = 500 * time.Millisecond

// logFilter selects entries. Empty fields match all.
type logFilter struct {
	workload, peer string
	refused        bool
	since          time.Time
}

func (f logFilter) matches(e accesslog.Entry) bool {
	return (f.workload == "" || e.Tags["workload"] == f.workload || e.Caller == f.workload) &&
		(f.peer == "" || e.Peer == f.peer) && (!f.refused || e.Verdict != "allowed") && !e.Time.Before(f.since)
}

func (a *app) logsCmd() *cobra.Command {
	var folders []string
	var filter logFilter
	var follow bool
	var since time.Duration
	var limit int
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "What this host's proxies refused, and what crossed between meshes",
		Long: `What the proxies of this host refused, and what crossed between meshes at its gateway, from the files that the
agents write. It asks no control plane: run it on the host of the workload or the gateway, as root.`,
		Example: `  isthmus logs
  isthmus logs -f --workload default/payments
  isthmus logs --peer retail --refused --since 10m -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(folders) == 0 {
				var err error
				if folders, err = filepath.Glob(filepath.Join(runFolders, "*", "access*.log")); err != nil {
					return err
				}
				for i := range folders {
					folders[i] = filepath.Dir(folders[i])
				}
				slices.Sort(folders)
				folders = slices.Compact(folders)
			}
			if len(folders) == 0 {
				return badInput("isthmus logs --run-dir DIR, the runDir of the agent's settings",
					"there is no log of an agent below %s", runFolders)
			}
			if since > 0 {
				filter.since = a.Now().Add(-since)
			}
			return a.logs(cmd.Context(), accesslog.NewReader(folders...), filter, limit, follow)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&folders, "run-dir", nil,
		"the runDir of an agent's settings; repeat it (default: all below "+runFolders+")")
	f.StringVar(&filter.workload, "workload", "", "only this one's, NAMESPACE/NAME")
	f.StringVar(&filter.peer, "peer", "", "only what crossed to or from this peer")
	f.BoolVar(&filter.refused, "refused", false, "only what was refused or failed")
	f.DurationVar(&since, "since", 0, "only the last period of this length, such as 10m")
	f.IntVar(&limit, "tail", 100, "at most this many of the latest to begin with; 0 for all")
	f.BoolVarP(&follow, "follow", "f", false, "follow new entries until Ctrl-C")
	return a.printer(cmd)
}

func (a *app) logs(ctx context.Context, r *accesslog.Reader, filter logFilter, limit int, follow bool) error {
	entries, err := a.readLogs(r, filter)
	if err != nil {
		return err
	}
	if limit > 0 && len(entries) > limit {
		entries = entries[len(entries)-limit:]
	}
	if len(entries) == 0 && !follow {
		fmt.Fprintln(a.Err, nothingLogged(r.Files(), filter))
	}
	for {
		for _, e := range entries {
			if err := a.printEntry(e); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(logPoll):
		}
		if entries, err = a.readLogs(r, filter); err != nil {
			return err
		}
	}
}

func nothingLogged(files int, filter logFilter) string {
	switch {
	case files == 0:
		return "There is no log there yet: nothing was refused, and nothing crossed; or it is no agent's runDir."
	case filter != (logFilter{}):
		return "No entry is like that, as far as the files go back."
	}
	return "Nothing was refused, and nothing crossed, as far as the files go back."
}

func (a *app) readLogs(r *accesslog.Reader, filter logFilter) ([]accesslog.Entry, error) {
	entries, err := r.Read()
	if err != nil {
		return nil, badInput("run it as root, on the host of the agent", "%s", err)
	}
	return slices.DeleteFunc(entries, func(e accesslog.Entry) bool { return !filter.matches(e) }), nil
}

// printEntry writes one entry: a text line, a JSON object per line, or a YAML document.
func (a *app) printEntry(e accesslog.Entry) error {
	switch a.output {
	case formatJSON:
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.Out, escaped(string(line)))
		return err
	case formatYAML:
		text, err := marshalYAML(e)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.Out, "---\n%s", text)
		return err
	}
	_, err := fmt.Fprintln(a.Out, clean(entryText(e, a.output == formatWide), oneLine))
	return err
}

func entryText(e accesslog.Entry, wide bool) string {
	at := e.Time.Local().Format(time.TimeOnly)
	if wide {
		at = e.Time.UTC().Format(time.RFC3339Nano)
	}
	parts := []string{at, e.Verdict, cmp.Or(e.Caller, e.Remote, "-") + " → " + cmp.Or(e.Destination, "-")}
	if e.Peer != "" {
		parts = append(parts, "peer "+e.Peer)
	}
	if e.Method != "" {
		parts = append(parts, e.Method+" "+e.Path)
	}
	if e.Code != 0 {
		parts = append(parts, fmt.Sprint(e.Code))
	}
	if e.Reason != "" {
		parts = append(parts, "("+e.Reason+")")
	}
	if e.Repeated > 0 {
		parts = append(parts, fmt.Sprintf("×%d", e.Repeated))
	}
	if wide {
		parts = append(parts, "from "+cmp.Or(e.Remote, "-"), e.Log, fmt.Sprintf("%.1fms", e.DurationMS))
		if e.AssertedBy != "" {
			parts = append(parts, "asserted by "+e.AssertedBy)
		}
	}
	return strings.Join(parts, "  ")
}
