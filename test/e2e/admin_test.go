//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"isthmus.dev/isthmus/internal/adminapi"
)

// overSocket asks a control plane as its administrator.
func overSocket[Req, Resp any](
	ctx context.Context, socket string, most time.Duration, method string, req *Req,
) (*Resp, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return adminapi.Call[Req, Resp](ctx, conn, method, req)
}

// allUp says what a mesh of so many proxies still waits for.
func allUp(st *adminapi.StatusResponse, proxies int) error {
	if len(st.Proxies) != proxies {
		return fmt.Errorf("%d proxies, want %d", len(st.Proxies), proxies)
	}
	for _, p := range st.Proxies {
		if !p.Connected || !p.Envoy.Running || len(p.Types) == 0 {
			return fmt.Errorf("%s is not up", p.Name)
		}
		if err := inStep(p); err != nil {
			return err
		}
	}
	return nil
}

func inStep(p adminapi.ProxyStatus) error {
	for _, ty := range p.Types {
		if ty.Nack != "" {
			return fmt.Errorf("%s refuses %s: %s", p.Name, ty.Type, ty.Nack)
		}
		if ty.Sent != ty.Acked {
			return fmt.Errorf("%s has not acknowledged %s", p.Name, ty.Type)
		}
	}
	return nil
}

// tellEnd tells the last lines of a log, if there is one.
func tellEnd(t *testing.T, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	t.Logf("%s\n%s", path, bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")))
}
