package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Exit codes as documented in docs/cli.md.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 64 // invalid command line
	exitInput       = 65 // invalid file, token or name
	exitUnreachable = 69 // no control plane answers
	exitRefused     = 77 // permission denied by the control plane
	exitFindings    = 79 // it worked and found problems
)

// Error is a failed command: what is wrong and what to do next.
type Error struct {
	Code int
	Text string
	Next string
}

func (e *Error) Error() string { return e.Text }

func usage(cmd *cobra.Command, format string, args ...any) *Error {
	return &Error{Code: exitUsage, Text: fmt.Sprintf(format, args...), Next: cmd.CommandPath() + " --help"}
}

// BadInput returns the error for an invalid file.
func BadInput(next string, err error) *Error {
	return &Error{Code: exitInput, Text: err.Error(), Next: next}
}

func badInput(next, format string, args ...any) *Error {
	return &Error{Code: exitInput, Text: fmt.Sprintf(format, args...), Next: next}
}

// refusal converts a gRPC status to an exit code and a suggested command.
func refusal(method string, err error) *Error {
	s := status.Convert(err)
	e := &Error{Code: exitFailed, Text: s.Message(), Next: "isthmus check"}
	switch s.Code() {
	case codes.Unavailable:
		e.Code, e.Next = exitUnreachable, "see the control plane's log, then isthmus check"
		if strings.Contains(e.Text, "tls: ") || strings.Contains(e.Text, "handshake failed") {
			e.Code, e.Next = exitRefused, nextCredentials
		}
	case codes.DeadlineExceeded:
		e.Code, e.Text = exitUnreachable, "no answer from the control plane in time"
		e.Next = "try a longer --timeout, or see the control plane's log"
	case codes.Canceled:
		e.Text, e.Next = "interrupted", ""
	case codes.PermissionDenied, codes.Unauthenticated:
		e.Code, e.Next = exitRefused, nextPermission
	case codes.InvalidArgument, codes.OutOfRange:
		e.Code, e.Next = exitInput, ""
	case codes.NotFound:
		e.Code, e.Next = exitInput, nextList(method)
	case codes.AlreadyExists, codes.FailedPrecondition:
		e.Next = nextList(method)
	case codes.Unimplemented:
		e.Text = fmt.Sprintf("this control plane does not know the call %s", method)
		e.Next = "isthmus version, and isthmus status for the control plane's version: upgrade the older one"
	}
	if e.Code != exitUnreachable && (strings.Contains(e.Text, "isthmus ") || strings.Contains(e.Text, " Fix: ")) {
		e.Next = "" // the message already says what to do
	}
	return e
}

const (
	nextPermission  = "run it as root on the control plane's machine, or get credentials there: isthmus admin cert NAME --out FILE"
	nextCredentials = "check that --credentials was made by this mesh and is still valid: isthmus admin cert NAME --out FILE makes new ones"
)

// nextList returns the command that lists the existing names.
func nextList(method string) string {
	switch {
	case method == "ProxyConfig", method == "RevokeNode":
		return "isthmus status lists the proxies"
	case method == "PeerInvite", method == "PeerAccept", strings.HasPrefix(method, "Peer"):
		return "isthmus peer list"
	case method == "Exports", method == "Imports", method == "Catalogue":
		return "isthmus peer list"
	case method == "ImportDraft":
		return "isthmus catalogue"
	case method == "ExportDraft":
		return "isthmus services"
	}
	return "isthmus check"
}
