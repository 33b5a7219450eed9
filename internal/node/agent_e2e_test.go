//go:build e2e

package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/waittest"
)

// pair is two workloads, web and pay, on one node; web calls pay at a virtual address. A trio has a third, shop, that
// calls pay likewise.
type pair struct {
	control        *fakeControl
	web, pay, shop string // network namespaces
	text           string // of the configuration
	cfg            Config
}

func newPair(t *testing.T, name string) *pair { return build(t, name, "") }

func newTrio(t *testing.T, name string) *pair {
	shop := newNetns(t, name+"-shop")
	p := build(t, name,
		fmt.Sprintf("- {name: shop-1, namespace: default, serviceAccount: shop, netns: %s, addresses: [10.79.1.2]}\n",
			shop))
	p.shop = shop
	p.joinShop(t)
	return p
}

// joinShop connects the shop to pay.
func (p *pair) joinShop(t *testing.T) {
	t.Helper()
	wireAs(t, p.shop, "eth0", "10.79.1.2/24", p.pay, "eth1", "10.79.1.3/24")
}

func build(t *testing.T, name, more string) *pair {
	t.Helper()
	needEnvoy(t)
	p := &pair{web: newNetns(t, name+"-web"), pay: newNetns(t, name+"-pay"), control: newFakeControl(t, "node-1")}
	p.join(t)
	dir := newDir(t, name)
	token := filepath.Join(dir, "token")
	must(t, os.WriteFile(token, []byte(p.control.token()), 0o600))
	text := fmt.Sprintf(`
name: node-1
runDir: %[1]s/run
stateDir: %[1]s/state
control: {addresses: [%[2]q], tokenFile: %[3]s}
envoy: {path: %[4]s, concurrency: 1, drainTime: 0s}
health: {address: "%[7]s"}
workloads:
- {name: web-1, namespace: default, serviceAccount: web, netns: %[5]s, addresses: [10.79.0.2], workloadSocket: {}}
- name: pay-1
  namespace: default
  serviceAccount: pay
  netns: %[6]s
  addresses: [10.79.0.3]
  ports: [{name: http, number: 8080}]
  readiness: {http: {port: 8080, path: /ready}, period: 100ms}
  workloadSocket: {}
`, dir, p.control.address, token, needEnvoy(t), p.web, p.pay, freeAddress(t)) + more
	cfg, err := parseConfig("agent.yaml", []byte(text))
	must(t, err)
	p.cfg, p.text = cfg, text
	p.control.tell.DNS = map[string]agentapi.DNSTable{"default/web-1": {
		Hosts:   map[string][]netip.Addr{"pay.default.svc.cluster.local": {netip.MustParseAddr("240.240.0.1")}},
		Refusal: netip.MustParseAddr("240.240.255.1"), RefusalSuffixes: []string{"default.svc.cluster.local"},
		MeshSuffix: "svc.cluster.local",
	}}
	root := strings.ReplaceAll(string(p.control.rootPEM()), "\n", `\n`)
	p.control.make = func(netns map[string]string) []fakeResource { return resources(t, root, netns) }
	return p
}

// join connects web and pay, and starts pay's server.
func (p *pair) join(t *testing.T) {
	t.Helper()
	wire(t, p.web, "10.79.0.2/24", p.pay, "10.79.0.3/24")
	go http.Serve(listenIn(t, p.pay, "0.0.0.0:8080"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "paid")
	}))
}

// resources are the Envoy configuration of the workloads whose namespaces are known, in TCP with mutual TLS.
func resources(t *testing.T, root string, netns map[string]string) (all []fakeResource) {
	t.Helper()
	workload := ""
	add := func(name string, m proto.Message, format string, args ...any) {
		must(t, protojson.Unmarshal([]byte(fmt.Sprintf(format, args...)), m))
		packed, err := anypb.New(m)
		must(t, err)
		all = append(all, fakeResource{
			workload: workload, name: name, version: fmt.Sprintf("%x", sha256.Sum256(packed.Value)), body: packed,
		})
	}
	const (
		sds  = `{"name":%q,"sds_config":{"resource_api_version":"V3","api_config_source":{"api_type":%q,"transport_api_version":"V3","grpc_services":[{"envoy_grpc":{"cluster_name":"agent"}}]}}}`
		mark = `"socket_options":[{"level":1,"name":36,"int_value":5491,"state":"STATE_PREBIND"}]`
	)
	common := func(account, api string) string {
		return fmt.Sprintf(`"common_tls_context":{"tls_params":{"tls_minimum_protocol_version":"TLSv1_3","tls_maximum_protocol_version":"TLSv1_3"},
			"tls_certificate_sds_secret_configs":[%s],
			"validation_context_sds_secret_config":{"name":"bundle/t.example","sds_config":{"ads":{},"resource_api_version":"V3"}}}`,
			fmt.Sprintf(sds, "spiffe://t.example/ns/default/sa/"+account, api))
	}
	bind := func(ns string) string {
		return fmt.Sprintf(`"upstream_bind_config":{"source_address":{"address":"0.0.0.0","port_value":0,"network_namespace_filepath":%q},%s}`, ns, mark)
	}
	endpoint := func(name, addr string, port int) string {
		return fmt.Sprintf(`"load_assignment":{"cluster_name":%q,"endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"socket_address":{"address":%q,"port_value":%d}}}}]}]}`, name, addr, port)
	}
	tcp := func(to string) string {
		return fmt.Sprintf(`[{"name":"tcp","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy","stat_prefix":"x","cluster":%q,
			"access_log":[{"name":"als","typed_config":{"@type":"type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig","common_config":{
			"log_name":"ingress","transport_api_version":"V3","buffer_flush_interval":"0.1s","grpc_service":{"envoy_grpc":{"cluster_name":"agent"}},"custom_tags":[{"tag":"peer","literal":{"value":"shop"}}]}}}]}}]`, to)
	}
	const original = `"listener_filters":[{"name":"od","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"}}]`
	add("bundle/t.example", new(tlsv3.Secret),
		`{"name":"bundle/t.example","validation_context":{"trusted_ca":{"inline_string":"%s"}}}`, root)
	for caller, address := range map[string]string{"web": "10.79.0.3", "shop": "10.79.1.3"} {
		workload = "default/" + caller + "-1"
		if netns[workload] == "" {
			continue
		}
		add(caller+"-out", new(listener.Listener), `{"name":"%s-out","address":{"socket_address":{"address":"127.0.0.1","port_value":15001,"network_namespace_filepath":%q}},%s,
		"filter_chains":[{"filter_chain_match":{"prefix_ranges":[{"address_prefix":"240.240.0.1","prefix_len":32}],"destination_port":80},"filters":%s}]}`,
			caller, netns[workload], original, tcp(caller+"-to-pay"))
		add(caller+"-to-pay", new(cluster.Cluster), `{"name":"%s-to-pay","type":"STATIC","connect_timeout":"2s",%s,%s,
		"transport_socket":{"name":"tls","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",%s}}}`,
			caller, endpoint(caller+"-to-pay", address, 8080), bind(netns[workload]), common(caller, "GRPC"))
	}
	if workload = "default/pay-1"; netns[workload] == "" {
		return all
	}
	add("pay-in", new(listener.Listener), `{"name":"pay-in","address":{"socket_address":{"address":"0.0.0.0","port_value":15006,"network_namespace_filepath":%q}},%s,
		"filter_chains":[{"filter_chain_match":{"destination_port":8080},"filters":%s,
		"transport_socket":{"name":"tls","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext","require_client_certificate":true,%s}}}]}`,
		netns[workload], original, tcp("pay-local"), common("pay", "DELTA_GRPC"))
	add("pay-local", new(cluster.Cluster), `{"name":"pay-local","type":"STATIC","connect_timeout":"2s",%s,%s}`,
		endpoint("pay-local", "127.0.0.1", 8080), bind(netns[workload]))
	return all
}

func (p *pair) call() error { return call(p.web) }

func call(ns string) error {
	body, err := get(ns, "http://240.240.0.1/")
	if err == nil && body != "200 paid" {
		err = errors.New(body)
	}
	return err
}

// ask asks a name server that does not exist: capture must take the question to the agent.
func ask(ns, network, name string, qtype uint16) (*dns.Msg, error) {
	return askOnce(ns, network, name, qtype, 2*time.Second)
}

// askOnce asks and waits; nothing is asked again.
func askOnce(ns, network, name string, qtype uint16, most time.Duration) (*dns.Msg, error) {
	raw, err := dialIn(ns, network, "192.0.2.53:53")
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(most))
	c := &dns.Conn{Conn: raw}
	if err := c.WriteMsg(new(dns.Msg).SetQuestion(name, qtype)); err != nil {
		return nil, err
	}
	return c.ReadMsg()
}

// inBothModes runs a test with one Envoy for both workloads, and with one each.
func inBothModes(t *testing.T, name string, test func(*testing.T, *pair)) {
	for _, mode := range []Mode{Shared, Sidecar} {
		t.Run(string(mode), func(t *testing.T) {
			p := newPair(t, name)
			p.cfg.Mode = mode
			test(t, p)
		})
	}
}

func TestEnvoyOneCallThroughEverything(t *testing.T) {
	inBothModes(t, "call", oneCall)
}

func oneCall(t *testing.T, p *pair) {
	began := time.Now()
	runAgent(t, p.cfg)
	eventually(t, 15*time.Second, "a call from web to pay", p.call)
	t.Logf("from nothing to the first call: %v", time.Since(began).Round(time.Millisecond))

	t.Run("dns", func(t *testing.T) {
		for _, network := range []string{"udp", "tcp"} {
			r, err := ask(p.web, network, "pay.default.svc.cluster.local.", dns.TypeA)
			must(t, err)
			if len(r.Answer) != 1 || !strings.HasSuffix(r.Answer[0].String(), "\t5\tIN\tA\t240.240.0.1") {
				t.Errorf("%s: %v", network, r)
			}
		}
	})
	t.Run("plaintext is refused", func(t *testing.T) {
		if body, err := get(p.web, "http://10.79.0.3:8080/"); err == nil {
			t.Errorf("an unlisted address answered %q", body)
		}
	})
	t.Run("udp is refused at once", func(t *testing.T) {
		c, err := dialIn(p.web, "udp", "10.79.0.3:9999")
		must(t, err)
		defer c.Close()
		began := time.Now()
		c.SetDeadline(began.Add(2 * time.Second))
		_, err = c.Write([]byte("hello"))
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) > time.Second {
			t.Errorf("got %v after %v, want a refusal at once", err, time.Since(began))
		}
		t.Logf("refused with: %v", err)
	})
	t.Run("report", func(t *testing.T) {
		eventually(t, 5*time.Second, "report", func() error {
			r := p.control.lastReport()
			if len(r.Workloads) != 2 || !r.Workloads[0].Ready || !r.Workloads[1].Ready || !r.Envoy.Running ||
				r.Envoy.Version != "1.40.0" || len(r.Certs) != 3 {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
	})
}

func TestEnvoyIsStartedAgain(t *testing.T) {
	p := newPair(t, "again")
	a, stop := runAgent(t, p.cfg)
	eventually(t, 15*time.Second, "a call", p.call)
	pid := envoyPID(t, a)
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, 10*time.Second, "a call after Envoy was killed", func() error {
		if envoyPID(t, a) == pid {
			return errors.New("the old pid")
		}
		return p.call()
	})
	eventually(t, 5*time.Second, "report", func() error {
		if r := p.control.lastReport(); r.Envoy.Restarts != 1 {
			return fmt.Errorf("restarts: %d", r.Envoy.Restarts)
		}
		return nil
	})
	pid = envoyPID(t, a)
	stop()
	if err := syscall.Kill(pid, 0); err == nil {
		t.Error("Envoy outlived the agent")
	}
	if body, err := get(p.web, "http://10.79.0.3:8080/"); err == nil {
		t.Errorf("plaintext passed after the agent stopped: %q", body)
	}
}

func envoyPID(t *testing.T, a *Agent) int {
	t.Helper()
	return pidIn(t, a.cfg.RunDir)
}

func pidIn(t *testing.T, runDir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(runDir, "envoy.pid"))
	must(t, err)
	var pid int
	_, err = fmt.Sscan(string(text), &pid)
	must(t, err)
	return pid
}

func TestEnvoyRenewsUnderLoad(t *testing.T) { inBothModes(t, "renew", renews) }

func renews(t *testing.T, p *pair) {
	p.control.ttl = 3 * time.Second
	runAgent(t, p.cfg)
	eventually(t, 15*time.Second, "a call", p.call)
	calls := 0
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); calls++ {
		if err := p.call(); err != nil {
			t.Errorf("call %d: %v", calls, err)
		}
		waittest.Pace(10 * time.Millisecond)
	}
	web, node := p.control.signedCount("/ns/default/sa/web"), p.control.signedCount("/isthmus/node/node-1")
	t.Logf("%d calls, %d certificates for web, %d renewals of the node's", calls, web, node)
	if web < 4 || node < 3 {
		t.Errorf("too few renewals: web %d, node %d", web, node)
	}
}

func TestEnvoyKeepsOnWithoutControlPlane(t *testing.T) {
	inBothModes(t, "away", keepsOn)
}

func keepsOn(t *testing.T, p *pair) {
	runAgent(t, p.cfg)
	eventually(t, 15*time.Second, "a call", p.call)
	streams := p.control.streamCount()
	p.control.stop()
	for range 50 {
		must(t, p.call())
		waittest.Pace(20 * time.Millisecond)
	}
	p.control.start(p.control.address)
	eventually(t, 10*time.Second, "Envoy is back at the control plane", func() error {
		p.control.mu.Lock()
		defer p.control.mu.Unlock()
		if p.control.streams == streams || p.control.known == 0 {
			return errors.New("no new stream")
		}
		return nil
	})
	must(t, p.call())
}
