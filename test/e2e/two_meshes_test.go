//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestTwoMeshesByHand: the page works as it is written, on two hosts that have nothing but the two programs.
func TestTwoMeshesByHand(t *testing.T) {
	t.Parallel()
	p := runPage(t, "isthmus-t-hand", "../../docs/two-meshes.md",
		map[string]string{"lab": "192.0.2.1/24", "bank": "192.0.2.2/24"})
	t.Run("a silent gateway", p.testSilentGateway)
}

// silentGateway is a second one, which sorts first, and whose inner address swallows what is sent to it.
const silentGateway = "```sh" + `
# at lab
ip addr add 10.1.0.2/24 dev web0
ip addr add 192.0.2.3/24 dev eth0
nft add table inet silent
nft add chain inet silent in '{ type filter hook input priority 0; }'
nft add rule inet silent in ip daddr 10.1.0.2 tcp dport 15444 drop
` + "```\n```yaml" + `
# /etc/isthmus/adge.yaml, at lab
name: adge
runDir: /run/isthmus/adge
stateDir: /var/lib/isthmus/adge
health: {address: "off"}
metrics: {address: ""}
gateway:
  serviceAccount: gateway
  innerAddress: 10.1.0.2
  outerAddress: 192.0.2.3
` + "```\n```sh" + `
# at lab
isthmus token create --role gateway --node adge --identity isthmus-system/gateway --out adge.token
isthmus gateway --config /etc/isthmus/adge.yaml --token-file adge.token &
isthmus check; test $? = 79
` + "```\n```text" + `
…
√ proxy adge: connected, all configuration acknowledged
…
× gateway adge: does not answer the control plane at its inner address: …
…
√ gateway edge: answers at 10.1.0.1, …
…
` + "```\n"

// testSilentGateway: beside a gateway that answers, one that does not costs neither the control planes nor the callers
// anything that lasts. A call that went to it would take 2 s.
func (p *page) testSilentGateway(t *testing.T) {
	began := time.Now()
	p.goOn(t, silentGateway)
	p.goOn(t, "```sh\n# at lab\nisthmus peer probe bank --import front/pay\n```\n")
	within(t, 30*time.Second, "calls go by the other gateway", func() error {
		took, err := p.calls(10)
		if err == nil && slices.Max(took) > time.Second {
			err = fmt.Errorf("they took %v", took)
		}
		return err
	})
	t.Logf("%s after it was there", time.Since(began).Round(time.Millisecond))
	took, err := p.calls(100)
	must(t, err)
	slices.Sort(took)
	t.Logf("100 new connections: median %v, longest %v", took[50], took[99])
	if slow := 100 - len(slices.DeleteFunc(took, func(d time.Duration) bool { return d > time.Second })); slow > 0 {
		t.Errorf("%d of 100 calls waited for the silent gateway", slow)
	}
	p.goOn(t,
		"```sh\n# at lab\nnft delete table inet silent\nisthmus check\n```\n```text\n…\n√ gateway adge: answers at 10.1.0.2, …\n…\n```\n")
}

// calls has web call pay, each time on a new connection, and says how long each took.
func (p *page) calls(n int) (took []time.Duration, err error) {
	var out bytes.Buffer
	c := p.command(p.hosts["lab"], "calls", "ip netns exec web sh -c '"+
		"for i in $(seq "+strconv.Itoa(n)+
		"); do curl -s -o /dev/null -w \"%{http_code} %{time_total}\\n\" http://pay.front.svc.cluster.local/; done'")
	c.Stdout = &out
	if err := p.lab.Run(c); err != nil {
		return nil, err
	}
	for line := range strings.Lines(out.String()) {
		var status int
		var seconds float64
		if _, err := fmt.Sscan(line, &status, &seconds); err != nil || status != 200 {
			return nil, fmt.Errorf("a call said %q", line)
		}
		took = append(took, time.Duration(seconds*float64(time.Second)))
	}
	if len(took) != n {
		return nil, fmt.Errorf("%d calls of %d", len(took), n)
	}
	return took, nil
}
