package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/wellknown"
	"isthmus.dev/isthmus/samples/apps"
	"isthmus.dev/isthmus/samples/probe"
)

const storefrontID = "spiffe://retail.example/ns/default/sa/storefront"

// storefrontCrosses buys something at the storefront and checks what arrives at payments.
func storefrontCrosses(_ context.Context, w *world) (string, error) {
	r, err := w.try("storefront", probe.Request{HTTP: &probe.HTTP{
		Method: "POST", URL: "http://127.0.0.1:8080/checkout", Body: `{"item":"tea","card":"4111111111111111"}`,
		Timeout: tryTimeout,
	}})
	if err != nil {
		return "", err
	}
	var receipt apps.Receipt
	if r.Status != 201 || json.Unmarshal([]byte(r.Body), &receipt) != nil {
		return "", errors.New(outcome(r))
	}
	c := receipt.Charge
	if c.ServedBy != "payments@cards" || !strings.HasPrefix(c.Token, "tok_") {
		return "", fmt.Errorf("charge served by %q with token %q", c.ServedBy, c.Token)
	}
	// A forged caller header must be removed, and internal names of either side must not cross.
	r, err = w.get("storefront", "GET", headersURL, map[string]string{
		"isthmus-caller":          "spiffe://retail.example/ns/default/sa/admin",
		"x-forwarded-client-cert": "URI=spiffe://cards.example/ns/default/sa/tokens",
	})
	if err != nil {
		return "", err
	}
	var arrived struct{ Headers []string }
	if r.Status != 200 || json.Unmarshal([]byte(r.Body), &arrived) != nil {
		return "", errors.New(outcome(r))
	}
	if err := onlyHonestHeaders(arrived.Headers, r.Headers); err != nil {
		return "", err
	}
	return fmt.Sprintf("201 from %s with a card token; forged and inner headers did not cross", c.ServedBy), nil
}

// webSocketCrosses sends three charges over one WebSocket. Callers that are not allowed, and services that are not
// exported, get none.
func webSocketCrosses(_ context.Context, w *world) (string, error) {
	open := func(workload, url string) (probe.Result, error) {
		return w.try(workload, probe.Request{Socket: &probe.Socket{
			URL: url, Send: []string{"450", "1200", "2900"}, Timeout: tryTimeout,
		}})
	}
	r, err := open("storefront", tillURL)
	if err != nil {
		return "", err
	}
	answers := strings.Fields(r.Body)
	if r.Status != 101 || r.Headers["served-by"] != "payments@cards" || len(answers) != 3 {
		return "", errors.New(outcome(r))
	}
	for _, answer := range answers {
		var c apps.Charge
		if err := json.Unmarshal([]byte(answer), &c); err != nil || c.ServedBy != "payments@cards" {
			return "", fmt.Errorf("%s, %v", answer, err)
		}
	}
	for who, url := range map[string]string{
		"catalogue":  tillURL,
		"storefront": "http://payments.default/admin/refunds",
	} {
		r, err := open(who, url)
		if err != nil {
			return "", err
		}
		if r.Status != 403 {
			return "", fmt.Errorf("%s at %s: %s", who, url, outcome(r))
		}
	}
	return "101 from payments@cards, 3 charges answered; catalogue and another path: 403", nil
}

// onlyHonestHeaders returns an error if a request or answer carried forged or internal names across.
func onlyHonestHeaders(request []string, answer map[string]string) error {
	for _, line := range request {
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case name == "isthmus-caller" && value != storefrontID,
			strings.Contains(line, "cards.example/ns/default/sa/tokens"):
			return fmt.Errorf("a forged header arrived: %s", line)
		case strings.Contains(line, "10.72.0."):
			return fmt.Errorf("an inner address crossed: %s", line)
		case name == "x-envoy-peer-metadata" || name == "x-envoy-decorator-operation":
			return fmt.Errorf("an inner header crossed: %s", line)
		}
	}
	for name, value := range answer {
		if strings.Contains(value, "10.71.0.") || strings.HasPrefix(name, "x-envoy-") {
			return fmt.Errorf("an inner name came back: %s: %s", name, value)
		}
	}
	return nil
}

// catalogueRefused calls the imported name from a workload that the import does not list.
func catalogueRefused(_ context.Context, w *world) (string, error) {
	r, err := w.get("catalogue", "GET", headersURL, nil)
	if err != nil {
		return "", err
	}
	if r.Status != 403 || r.Headers["served-by"] != "" {
		return "", errors.New(outcome(r))
	}
	return outcome(r), nil
}

// tokensRefused calls the TCP service that cards does not export.
func tokensRefused(_ context.Context, w *world) (string, error) {
	r, err := w.connect("storefront", "tokens.default:7000")
	if err != nil {
		return "", err
	}
	if r.Body != "" {
		return "", fmt.Errorf("received %q", r.Body)
	}
	return bytesOf(r), nil
}

func bytesOf(r probe.Result) string {
	return fmt.Sprintf("%d bytes, %s", len(r.Body), outcomeOfTCP(r))
}

func outcomeOfTCP(r probe.Result) string {
	if r.Error == "" {
		return "closed"
	}
	for _, known := range []string{
		"connection reset by peer", "connection refused", "no such host",
		"server misbehaving", "i/o timeout",
	} {
		if strings.Contains(r.Error, known) {
			return known
		}
	}
	return r.Error
}

// forbiddenRefused tries requests that the export does not allow. The gateway's own counters prove that they went no
// further.
func forbiddenRefused(ctx context.Context, w *world) (string, error) {
	before, err := w.admin(w.cards()).peer(ctx, "retail")
	if err != nil {
		return "", err
	}
	var seen []string
	for _, try := range []struct{ method, url string }{
		{"DELETE", chargesURL + "/ch_1"},
		{"GET", "http://payments.default/admin/refunds"},
		{"GET", "http://payments.default/v1/charges/..%2f..%2fadmin/refunds"},
	} {
		r, err := w.get("storefront", try.method, try.url, nil)
		if err != nil {
			return "", err
		}
		path := strings.TrimPrefix(try.url, "http://payments.default")
		if r.Status < 400 || r.Status > 499 || r.Headers["served-by"] != "" {
			return "", fmt.Errorf("%s %s: %s", try.method, path, outcome(r))
		}
		seen = append(seen, fmt.Sprintf("%s %s %d", try.method, path, r.Status))
	}
	const least = 2 // the caller's proxy may already refuse the encoded path
	var denials uint64
	err = retry.Until(ctx, 10*time.Second, 50*time.Millisecond, func(ctx context.Context) error {
		after, err := w.admin(w.cards()).peer(ctx, "retail")
		if err != nil {
			return err
		}
		denials = after.Counts.Denials - before.Counts.Denials
		if denials < least {
			return fmt.Errorf("refused (%s), but cards' gateway counts %d denials", strings.Join(seen, ", "), denials)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; cards' gateway counts %d denials", strings.Join(seen, ", "), denials), nil
}

// plaintextRefused speaks plain HTTP to a STRICT workload and to the gateway's port for peers.
func plaintextRefused(ctx context.Context, w *world) (string, error) {
	cards := w.cards()
	_, payments, _ := w.plan.find("payments")
	var seen []string
	for _, try := range []struct{ what, from, to string }{
		{"payments", w.plan.hostNetns(cards), hostPort(payments.address, int(payments.port))},
		{"gateway", w.plan.stranger(), hostPort(cards.outer, wellknown.FederationPort)},
	} {
		answer := plainHTTP(ctx, try.from, try.to)
		if strings.HasPrefix(answer, served) || strings.HasPrefix(answer, "2") {
			return "", fmt.Errorf("%s answered plaintext: %s", try.what, answer)
		}
		seen = append(seen, try.what+": "+answer)
	}
	return strings.Join(seen, "; "), nil
}

// served starts the result of plainHTTP if a program of the demo answered.
const served = "the program itself answered "

// plainHTTP describes the result of a plaintext request.
func plainHTTP(ctx context.Context, from, to string) string {
	conn, err := dial(ctx, from, to)
	if err != nil {
		return cause(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(tryTimeout)) // a dead connection shows in the read
	if _,
		err := fmt.Fprintf(conn,
		"GET /v1/charges/headers HTTP/1.1\r\nHost: payments.default\r\nConnection: close\r\n\r\n"); err != nil {
		return cause(err)
	}
	text, err := io.ReadAll(io.LimitReader(conn, 64<<10))
	if len(text) == 0 {
		return "closed without a byte (" + cause(err) + ")"
	}
	head, body, _ := strings.Cut(string(text), "\r\n\r\n")
	status, _, _ := strings.Cut(strings.TrimPrefix(head, "HTTP/1.1 "), "\r\n")
	if strings.Contains(strings.ToLower(head), "served-by: ") {
		status = served + status
	}
	return status + " " + brief(body)
}

// directUnreachable connects to the address directly: from a workload, which is captured, and from the gateway, which
// is not.
func directUnreachable(ctx context.Context, w *world) (string, error) {
	_, payments, _ := w.plan.find("payments")
	address := hostPort(payments.address, int(payments.port))
	r, err := w.get("storefront", "GET", "http://"+address+"/v1/charges/headers", nil)
	if err != nil {
		return "", err
	}
	if r.Headers["served-by"] != "" || r.Status == 200 {
		return "", errors.New("the storefront reached it: " + outcome(r))
	}
	conn, err := dial(ctx, w.plan.gatewayNetns(w.retail()), address)
	if err == nil {
		conn.Close()
		return "", errors.New("retail's gateway reached it")
	}
	return fmt.Sprintf("storefront: %s; gateway: %s", outcome(r), cause(err)), nil
}
