package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"isthmus.dev/isthmus/bench/adsclient"
	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/bench/rig"
)

type adsStream = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

// attack is what a node of the mesh does to its control plane with one stream after the other, as fast as it can.
type attack struct {
	name string
	run  func(adsStream) error // until the stream ends
}

var attacks = []attack{
	{"does not read", func(s adsStream) error {
		err := subscribe(s)
		for ; err == nil; err = again(s) { // each asks for all of it once more
		}
		return err
	}},
	{"refuses everything", func(s adsStream) error {
		err := subscribe(s)
		for err == nil {
			var r *discovery.DeltaDiscoveryResponse
			if r, err = s.Recv(); err == nil {
				err = s.Send(&discovery.DeltaDiscoveryRequest{
					TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce,
					ErrorDetail:            &rpcstatus.Status{Message: strings.Repeat("no ", 10_000)},
					ResourceNamesSubscribe: names(r),
				})
			}
		}
		return err
	}},
	{"subscribes to a million names", func(s adsStream) error {
		err := error(nil)
		for i := 0; err == nil && i < 1_000_000; i += 1000 {
			var invented []string
			for n := range 1000 {
				invented = append(invented, fmt.Sprintf("service-%d.default.svc.cluster.local:80", i+n))
			}
			err = s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: adsclient.EDS, ResourceNamesSubscribe: invented})
		}
		return err
	}},
	{"forges nonces", func(s adsStream) error {
		err := subscribe(s)
		for i := 0; err == nil; i++ {
			err = s.Send(&discovery.DeltaDiscoveryRequest{
				TypeUrl: adsclient.Types[i%3], ResponseNonce: strconv.Itoa(i),
				ErrorDetail: &rpcstatus.Status{Message: "no"},
			})
		}
		return err
	}},
}

func subscribe(s adsStream) error {
	for _, t := range []string{adsclient.CDS, adsclient.LDS} {
		if err := s.Send(&discovery.DeltaDiscoveryRequest{
			TypeUrl:                t,
			ResourceNamesSubscribe: []string{"*"},
		}); err != nil {
			return err
		}
	}
	return nil
}

func again(s adsStream) error {
	if err := s.Send(&discovery.DeltaDiscoveryRequest{
		TypeUrl:                  adsclient.LDS,
		ResourceNamesUnsubscribe: []string{"*"},
	}); err != nil {
		return err
	}
	return s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: adsclient.LDS, ResourceNamesSubscribe: []string{"*"}})
}

func names(r *discovery.DeltaDiscoveryResponse) []string {
	var all []string
	for _, x := range r.Resources {
		all = append(all, x.Name)
	}
	return all
}

// attackCommand makes this program an attacker: its arguments are the attack, the proxy that attacks, the control
// plane's socket for a join token, and its address.
const attackCommand = "attack"

// attackAs attacks until the process is ended.
func attackAs(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("%s needs 4 arguments and has %q", attackCommand, args)
	}
	i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == args[0] })
	proxy, err := strconv.Atoi(args[1])
	if i < 0 || err != nil {
		return fmt.Errorf("no attack %q as proxy %q", args[0], args[1])
	}
	admin, err := grpc.NewClient("unix:"+args[2], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("reach the administration socket: %w", err)
	}
	defer admin.Close()
	cfg, err := rig.Join(ctx, admin, args[3], proxy)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(args[3], grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		return fmt.Errorf("dial %s: %w", args[3], err)
	}
	defer conn.Close()
	go rig.RunAgentStream(ctx, conn, genmesh.Workload(proxy))
	sent := 0
	for ctx.Err() == nil {
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err != nil {
			continue // it is turned away; it goes on
		}
		if attacks[i].run(counted{stream, &sent}) != nil {
			for err == nil { // what is left to read, up to why it ended
				_, err = stream.Recv()
			}
		}
	}
	fmt.Println(sent)
	return nil
}

// counted counts the requests that a stream took.
type counted struct {
	adsStream
	sent *int
}

func (c counted) Send(r *discovery.DeltaDiscoveryRequest) error {
	err := c.adsStream.Send(r)
	if err == nil {
		*c.sent++
	}
	return err
}

// launch starts an attacker as a process of its own, of the lowest priority: what it does itself is not to count. stop
// ends it and says how many requests it got rid of.
func (a attack) launch(proxy int, c *rig.Control) (stop func() int, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	var out bytes.Buffer
	cmd := exec.Command("nice", "-n", "19", self, attackCommand, a.name, strconv.Itoa(proxy), c.Socket, c.AgentAddress)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, os.Stderr, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start an attacker: %w", err)
	}
	return func() int {
		cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		defer late.Stop()
		cmd.Wait()
		n, _ := strconv.Atoi(strings.TrimSpace(out.String())) // none when it had to be killed
		return n
	}, nil
}
