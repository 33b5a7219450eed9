//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// TestRequests does what docs/requests.md says, row by row: to a service of one mesh, and to one of the other.
func TestRequests(t *testing.T) {
	t.Parallel()
	rows := requestRows(t)
	policies := []string{""}
	for _, r := range rows {
		if !slices.Contains(policies, r.policy) {
			policies = append(policies, r.policy)
		}
	}
	if len(rows) < 100 || len(policies) < 10 {
		t.Fatalf("%d rows with %d policies: the page has more", len(rows), len(policies))
	}
	s := raise(t, "isthmus-t-req")
	seen := map[string]*recorder{}
	var cards, retail strings.Builder
	for n, p := range policies {
		inside, far := rulesOf(p)
		port := 8100 + n
		service := fmt.Sprintf(requestService, n, port)
		retail.WriteString(service + strings.ReplaceAll(inside.workload(n, port), "APP", "catalogue"))
		cards.WriteString(strings.ReplaceAll(service, "catalogue", "tokens") + strings.ReplaceAll(far.workload(n, port),
			"APP", "tokens"))
		cards.WriteString(far.exported(n))
		retail.WriteString(fmt.Sprintf(requestImport, n, n))
		seen[fmt.Sprintf("p%d", n)] = record(t, s.prefix+"-retail-catalogue", fmt.Sprintf("10.72.0.12:%d", port))
		seen[fmt.Sprintf("far%d", n)] = record(t, s.prefix+"-cards-tokens", fmt.Sprintf("10.71.0.12:%d", port))
	}
	retail.WriteString(rawImport)
	need(t, os.WriteFile(filepath.Join(s.dir, "cards", "config", "requests.yaml"), []byte(cards.String()), 0o644))
	need(t, os.WriteFile(filepath.Join(s.dir, "retail", "config", "requests.yaml"), []byte(retail.String()), 0o644))
	c := &asker{netns: s.prefix + "-retail-storefront"}
	for name := range seen {
		within(t, 30*time.Second, name+" is reached", func() error {
			// Until a policy is in force nobody may call; a DENY that comes with its ALLOW comes with it.
			got, err := c.ask(request{
				version: "1.1", method: "GET", path: "/",
				headers: []string{"x-role: admin", "cookie: role=admin"},
			}, name)
			if err == nil && (got.status >= 500 || strings.Contains(got.body, "may not call")) {
				err = fmt.Errorf("%d %s", got.status, got.body)
			}
			return err
		})
	}
	for _, r := range rows {
		n := slices.Index(policies, r.policy)
		for place, want := range map[string]int{fmt.Sprintf("p%d", n): r.inside, fmt.Sprintf("far%d", n): r.across} {
			seen[place].taken()
			got, err := c.ask(r.request, place)
			if err != nil || got.status != want {
				t.Errorf("line %d: %s, %s, at %s: %d %s%v, want %d", r.line, r.text, r.policy, place, got.status,
					got.body, err, want)
			}
			arrived := seen[place].taken()
			if (len(arrived) > 0) != (want < 300) {
				t.Errorf("line %d: %s, %s, at %s: the application got %q", r.line, r.text, r.policy, place, arrived)
			}
			if want >= 300 || len(arrived) == 0 {
				continue
			}
			for _, w := range r.sees {
				if err := sees(arrived[0], w); err != nil {
					t.Errorf("line %d: %s, at %s: %v", r.line, r.text, place, err)
				}
			}
		}
	}
	unchanged(t, c, seen)
	suspendedPeer(t, s, c)
}

// sees compares what arrived with one word of the page.
func sees(arrived, want string) error {
	if gone, ok := strings.CutPrefix(want, "no "); ok {
		if strings.Contains(strings.ToLower(arrived), strings.ToLower(gone)) {
			return fmt.Errorf("%q is in what the application got:\n%s", gone, arrived)
		}
		return nil
	}
	if !slices.ContainsFunc(strings.Split(arrived, "\n"), func(line string) bool {
		return strings.EqualFold(line, want) && (line == want || strings.Contains(line, ": "))
	}) {
		return fmt.Errorf("the application did not get %q:\n%s", want, arrived)
	}
	return nil
}

const requestService = `---
apiVersion: v1
kind: Service
metadata: {name: p%[1]d, namespace: default}
spec: {selector: {app: catalogue}, ports: [{name: http, port: 80, targetPort: %[2]d}]}
`

const requestImport = `---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedImport
metadata: {name: far%d, namespace: default}
spec: {port: 80, from: [{peer: cards, name: p%d}], callers: [storefront]}
`

// requestRules are what is in force for one policy of the page.
type requestRules struct {
	allow  string // fields of what the workload's policy allows, beside the port
	deny   string // of what it denies; empty denies nothing
	export string // fields of the export's one rule
}

var exportable = regexp.MustCompile(`^(paths: \[[" ]*/[^{]*\]|methods: \[[A-Z, ]*\])$`)

var aCondition = regexp.MustCompile(`^(request\.headers\[[^]]*\])( not)?: (.*)$`)

// rulesOf reads "ALLOW paths: […]".
func rulesOf(policy string) (inside, far requestRules) {
	action, fields, _ := strings.Cut(policy, " ")
	if m := aCondition.FindStringSubmatch(fields); m != nil {
		fields = "WHEN" + m[1] + ", " + map[bool]string{false: "values", true: "notValues"}[m[2] != ""] + ": " + m[3]
	}
	switch {
	case action == "DENY":
		return requestRules{deny: fields}, requestRules{deny: fields}
	case exportable.MatchString(fields):
		return requestRules{allow: fields}, requestRules{export: fields}
	}
	return requestRules{allow: fields}, requestRules{allow: fields}
}

func (r requestRules) workload(n, port int) string {
	out := requestPolicy(fmt.Sprintf("p%d-allow", n), "ALLOW", port, r.allow)
	if r.deny != "" {
		out += requestPolicy(fmt.Sprintf("p%d-deny", n), "DENY", port, r.deny)
	}
	return out
}

func requestPolicy(name, action string, port int, fields string) string {
	rule := fmt.Sprintf(`{to: [{operation: {ports: ["%d"], %s}}]}`, port, fields)
	if when, ok := strings.CutPrefix(fields, "WHEN"); ok {
		rule = fmt.Sprintf(`{to: [{operation: {ports: ["%d"]}}], when: [{key: "%s}]}`, port,
			strings.Replace(when, "],", `]",`, 1))
	}
	return policy("default", name, "selector: {matchLabels: {app: APP}}\naction: "+action+"\nrules: ["+rule+"]")
}

func (r requestRules) exported(n int) string {
	return fmt.Sprintf(`---
apiVersion: isthmus.dev/v1alpha1
kind: FederatedExport
metadata: {name: p%[1]d, namespace: default}
spec: {service: p%[1]d, port: 80, to: [{peer: retail, rules: [{%[2]s}]}]}
`, n, r.export)
}

// requestRow is one row of the page.
type requestRow struct {
	line           int
	text, policy   string
	request        request
	inside, across int
	sees           []string
}

// request is what the client sends.
type request struct {
	http2             bool
	version           string // of HTTP/1
	method, path      string
	headers, trailers []string // "name: value"
}

var (
	span       = regexp.MustCompile("`([^`]+)`")
	statusCode = regexp.MustCompile(`\d{3}`)
	// aHeader begins where a word of a row ends in a colon.
	aHeader = regexp.MustCompile(` (trailer )?(:?[a-z][a-z0-9_.!~-]*): `)
)

// requestRows reads every table whose first column is what the client sends.
func requestRows(t *testing.T) []requestRow {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "requests.md"))
	need(t, err)
	var out []requestRow
	var columns []string
	for n, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "| "), `\|`, "\x00"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "\x00", "|"))
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			columns = nil
			continue
		case strings.HasPrefix(line, "|---"):
			continue
		case columns == nil:
			columns = cells
			continue
		case columns[0] != "The client sends":
			continue
		}
		r := requestRow{line: n + 1}
		for i, cell := range cells {
			spans := span.FindAllStringSubmatch(cell, -1)
			switch columns[min(i, len(columns)-1)] {
			case "The client sends":
				r.text = spans[0][1]
				r.request = readRequest(r.text)
			case "Policy":
				if len(spans) > 0 {
					r.policy = spans[0][1]
				}
			case "Inside":
				r.inside, _ = strconv.Atoi(statusCode.FindString(cell))
			case "Across":
				r.across, _ = strconv.Atoi(statusCode.FindString(cell))
			case "The application sees":
				for _, s := range spans {
					r.sees = append(r.sees, s[1])
				}
			default:
				t.Fatalf("line %d: what is the column of %q?", n+1, cell)
			}
		}
		if r.inside == 0 || r.across == 0 {
			t.Fatalf("line %d: what comes back, inside and across? %s", n+1, line)
		}
		out = append(out, r)
	}
	return out
}

// readRequest reads "HTTP/2 GET /path name: value trailer name: value".
func readRequest(text string) (r request) {
	text, r.http2 = strings.CutPrefix(text, "HTTP/2 ")
	r.version = "1.1"
	if rest, ok := strings.CutPrefix(text, "HTTP/1.0 "); ok {
		text, r.version = rest, "1.0"
	}
	at := aHeader.FindAllStringSubmatchIndex(text, -1)
	line := text
	for i, m := range at {
		if i == 0 {
			line = text[:m[0]]
		}
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		h := text[m[4]:end]
		if m[2] >= 0 {
			r.trailers = append(r.trailers, h)
		} else {
			r.headers = append(r.headers, h)
		}
	}
	r.method, r.path, _ = strings.Cut(line, " ")
	return r
}

// asker is a program in the storefront's namespace.
type asker struct{ netns string }

// dial connects to a service by its name.
func (a *asker) dial(name string) (c net.Conn, err error) {
	addr, _, err := a.address(name + ".default.svc.cluster.local")
	if err != nil {
		return nil, err
	}
	err = lab.Inside(a.netns, func() error {
		c, err = net.DialTimeout("tcp", netip.AddrPortFrom(addr, 80).String(), 10*time.Second)
		return err
	})
	return c, err
}

// address asks for that of a name.
func (a *asker) address(name string) (addr netip.Addr, text string, err error) {
	var r *dns.Msg
	err = lab.Inside(a.netns, func() error {
		r, _, err = (&dns.Client{Timeout: 10 * time.Second}).Exchange(new(dns.Msg).SetQuestion(name+".", dns.TypeA),
			"127.0.0.1:53")
		return err
	})
	if err != nil {
		return addr, "", err
	}
	for _, rr := range r.Answer {
		if rr, ok := rr.(*dns.A); ok {
			addr, _ := netip.AddrFromSlice(rr.A.To4())
			return addr, addr.String(), nil
		}
	}
	return addr, "", fmt.Errorf("%s has no address: %v", name, r)
}
