// Command isthmus-samples runs one of the small programs of the demo: payments, tokens, storefront, catalog or orders.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"isthmus.dev/isthmus/samples/apps"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := apps.Main(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "isthmus-samples:", err)
		os.Exit(1)
	}
}
