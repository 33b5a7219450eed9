// Command isthmus-samples runs one of the small programs of the demo: payments, tokens, storefront, catalogue or
// orders. `isthmus-samples probe` is how the tour tries things from inside a workload's network.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"isthmus.dev/isthmus/samples/apps"
	"isthmus.dev/isthmus/samples/probe"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := func() error { return apps.Main(ctx, os.Args[1:], os.Stdout) }
	if len(os.Args) == 2 && os.Args[1] == "probe" {
		run = func() error { return probe.Main(ctx, os.Stdin, os.Stdout) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "isthmus-samples:", err)
		os.Exit(1)
	}
}
