package main

import "isthmus.dev/isthmus/internal/cli"

// verbs joins the command line to the parts that it starts.
func verbs() cli.Verbs {
	return cli.Verbs{}
}
