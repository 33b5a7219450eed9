// Resolve prints what Go's own resolver makes of each name.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	for _, name := range os.Args[1:] {
		found, err := net.LookupHost(name)
		var e *net.DNSError
		switch {
		case errors.As(err, &e) && e.IsNotFound:
			fmt.Println(name, "none")
		case err != nil:
			fmt.Println(name, err)
		default:
			fmt.Println(name, strings.Join(found, " "))
		}
	}
}
