//go:build e2e

package install

// ledger is a program that was there before the mesh: it says back what it is told, on connections that stay open.
const ledger = `mkdir -p /etc/isthmus/netns
echo ADDRESS=10.1.2.21 >/etc/isthmus/netns/ledger
systemctl start isthmus-netns@ledger
cat >/root/ledger.py <<'END'
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
Server(("0.0.0.0", 9000), Echo).serve_forever()
END
systemd-run -q --unit=ledger -p NetworkNamespacePath=/run/netns/ledger /usr/bin/python3 /root/ledger.py`

// plain is a caller outside the mesh. It keeps one connection open from the beginning, and makes a new one each half
// second; it writes down for each kind what it met last.
const plain = `cat >/root/plain.py <<'END'
import socket, time
def say(c):
    c.settimeout(3)
    c.sendall(b"word\n")
    return "answered" if c.recv(5) == b"word\n" else "closed"
def met(kind, what):
    with open("/run/plain." + kind, "w") as f: f.write(what)
while True:
    try: old = socket.create_connection(("10.1.2.21", 9000), 3); break
    except OSError: time.sleep(.1)
while True:
    try: met("old", say(old))
    except OSError: met("old", "cut")
    try:
        with socket.create_connection(("10.1.2.21", 9000), 3) as c: met("new", say(c))
    except OSError: met("new", "refused")
    time.sleep(.5)
END
systemd-run -q --unit=plain /usr/bin/python3 /root/plain.py`

// The page docs/adopt.md does what it says: nobody notices the capture, who speaks plaintext is named, and STRICT ends
// it.
func testAdoption(alpha, beta *host, packages string) {
	beta.run(ledger)
	alpha.run(plain)
	meets := func(kind, what string) {
		alpha.t.Helper()
		alpha.eventually("the caller outside the mesh meets on its "+kind+" connection: "+what, func() bool {
			got, err := alpha.try("cat /run/plain." + kind)
			return err == nil && got == what
		})
	}
	meets("old", "answered")
	meets("new", "answered")
	after := map[int]func(){
		3: func() { // captured
			alpha.run("rm /run/plain.*")
			meets("old", "answered")
			meets("new", "answered")
		},
		5: func() { // closed
			meets("old", "cut")
			for _, what := range []string{"closed", "refused"} {
				if got, _ := alpha.try("cat /run/plain.new"); got == what {
					return
				}
			}
			alpha.t.Error("a new connection in plaintext is answered by a STRICT workload")
		},
	}
	runPageWith(alpha.t, "adopt.md", packages, after, alpha, beta)
	alpha.run("systemctl stop plain; rm /etc/isthmus/mesh/ledger.yaml")
	beta.run("systemctl stop ledger")
}
