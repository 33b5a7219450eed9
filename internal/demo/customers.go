package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/samples"
	"isthmus.dev/isthmus/samples/probe"
)

// customer is a client written in some language that runs as the storefront.
type customer struct {
	name    string
	command lab.Command
	in      []byte // its standard input
}

// socketCustomer holds one WebSocket open. It ends when its server ends.
const socketCustomer = "socket"

// customerPause is the pause between a customer's requests, in milliseconds.
const customerPause = "50"

// customers prepares the clients.
func (w *world) customers(ctx context.Context) ([]customer, error) {
	tools := map[string]string{}
	var lacking []string
	for _, t := range []struct{ program, from string }{
		{"python3", "python3"}, {"node", "nodejs"}, {"java", "default-jdk-headless"}, {"musl-gcc", "musl-tools"},
	} {
		path, err := exec.LookPath(t.program)
		if err != nil {
			lacking = append(lacking, t.from)
		}
		tools[t.program] = path
	}
	if len(lacking) > 0 {
		return nil, fmt.Errorf("the soak's customers need %s: apt-get install %[1]s", strings.Join(lacking, " "))
	}
	dir := filepath.Join(w.files.dir, "customers")
	programs, err := fs.Sub(samples.Customers, "customers")
	if err == nil {
		err = os.CopyFS(dir, programs)
	}
	if err != nil {
		return nil, fmt.Errorf("write the customers: %w", err)
	}
	u, err := url.Parse(headersURL)
	if err != nil {
		return nil, err
	}
	inC := filepath.Join(dir, "customer")
	build := exec.CommandContext(ctx, tools["musl-gcc"], "-static", "-O1", "-o", inC, inC+".c")
	if said, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the customer in C: %w: %s", err, said)
	}
	as := func(name, path string, args ...string) customer {
		c := w.command("storefront")
		c.Name, c.Path, c.Args = "customer-"+name, path, args
		return customer{name: name, command: c}
	}
	chat, err := json.Marshal(probe.Request{Chat: &probe.Chat{
		URL: tillURL, Send: "100", Pause: 200 * time.Millisecond, Timeout: tryTimeout,
	}})
	if err != nil {
		return nil, err
	}
	return []customer{
		{name: socketCustomer, command: w.command("storefront"), in: append(chat, '\n')},
		as("python", tools["python3"], filepath.Join(dir, "customer.py"), headersURL, customerPause),
		as("node", tools["node"], filepath.Join(dir, "customer.mjs"), headersURL, customerPause),
		as("java", tools["java"], "-Xmx64m", filepath.Join(dir, "Customer.java"), headersURL, customerPause),
		as("musl", inC, u.Hostname(), "80", u.Path, customerPause),
	}, nil
}
