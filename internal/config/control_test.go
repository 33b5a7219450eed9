package config

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"isthmus.dev/isthmus/internal/state/postgres"
	"isthmus.dev/isthmus/internal/strictyaml"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	path := write(t, `
configDir: mesh
stateFile: /var/lib/isthmus/state.db
agentAddress: 10.1.0.2:15012
names:
  dns: [control.cards.example]
  ips: [10.1.0.2]
log: {level: debug, format: json}
`)
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err = got.Complete()
	if err != nil {
		t.Fatal(err)
	}
	want := Control{
		ConfigDir:      filepath.Join(filepath.Dir(path), "mesh"),
		StateFile:      "/var/lib/isthmus/state.db",
		KeyFile:        "/var/lib/isthmus/state.db.key",
		ConfigCopies:   "/var/lib/isthmus/state.db.config",
		Socket:         "/run/isthmus/control/control.sock",
		AgentAddress:   "10.1.0.2:15012",
		PeeringAddress: ":15013",
		MetricsAddress: ":15020",
		HealthAddress:  "127.0.0.1:15021",
		Names: Names{
			DNS: []string{"control.cards.example"},
			IPs: []netip.Addr{netip.MustParseAddr("10.1.0.2")},
		},
		Log: Log{Level: slog.LevelDebug, Format: "json"},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"unknown key": {
			"configDir: x\nstatefile: y\n",
			`control.yaml:2: statefile: there is no field "statefile" here. Fix: did you mean stateFile? It is one of: ` +
				`agentAddress, ca, configCopies, configDir,`,
		},
		"unknown nested key": {
			"log:\n  lvl: debug\n",
			`control.yaml:2: log.lvl: there is no field "lvl" here. Fix: remove it, or use one of: format, level`,
		},
		"wrong type": {"socket: [a]\n", "control.yaml:1: socket: must be text, is a list. Fix: write text"},
		"wrong level": {
			"log: {level: loud}\n",
			`control.yaml:1: log.level: "loud" is not a log level. Fix: write debug`,
		},
		"key twice": {
			"socket: a\nsocket: b\n",
			`control.yaml:2: socket: the key "socket" stands twice in this mapping. Fix: keep one of the two`,
		},
		"not settings":  {"- a\n", "control.yaml:1: must be a mapping, is a list. Fix: write a mapping"},
		"two documents": {"socket: a\n---\nsocket: b\n", "control.yaml:3: the file holds more than one document"},
		"not YAML":      {"socket: {\n", "control.yaml:1: not YAML: did not find expected node content"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, tc.in))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load: %v\nwant  …%s…", err, tc.want)
			}
		})
	}
}

func TestLoadEmptyFileMeansDefaults(t *testing.T) {
	for _, in := range []string{"", "# nothing\n", "---\n"} {
		got, err := Load(write(t, in))
		if err != nil {
			t.Errorf("Load(%q): %v", in, err)
		}
		if got.AgentAddress != ":15012" {
			t.Errorf("Load(%q): agentAddress %q, want :15012", in, got.AgentAddress)
		}
	}
}

func TestCompleteNamesEveryMistake(t *testing.T) {
	c := Default()
	c.AgentAddress = "15012"
	c.Log.Format = "xml"
	c.CA = CA{RootKey: "root.key", IntermediateCert: "i.pem"}
	_, err := c.Complete()
	if err == nil {
		t.Fatal("Complete accepted it")
	}
	for _, want := range []string{
		"configDir is missing", "stateFile is missing", `agentAddress: "15012" is not host:port`, "log.format",
		"ca.rootCert is missing", "intermediateCert and intermediateKey go together",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestCompleteRefusesAnAuthorityThatCannotSign(t *testing.T) {
	c := Default()
	c.ConfigDir, c.StateFile = "mesh", "state.db"
	c.CA = CA{RootCert: "root.pem"}
	if _, err := c.Complete(); err == nil || !strings.Contains(err.Error(), "nothing here can sign") {
		t.Errorf("Complete: %v", err)
	}
}

func TestPostgresSettings(t *testing.T) {
	path := write(t, `
configDir: mesh
keyFile: /etc/isthmus/key
configCopies: /var/lib/isthmus/config
postgres:
  addresses: [db1.example:5432, db2.example:5432]
  database: cards
  user: isthmus
  passwordFile: password
`)
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err = got.Complete(); err != nil {
		t.Fatal(err)
	}
	want := postgres.Config{
		Addresses: []string{"db1.example:5432", "db2.example:5432"}, Database: "cards", User: "isthmus",
		PasswordFile: filepath.Join(filepath.Dir(path), "password"),
	}
	if diff := cmp.Diff(want, got.Postgres); diff != "" {
		t.Error(diff)
	}
	got.StateFile, got.KeyFile, got.ConfigCopies = "state.db", "", ""
	got.Postgres = postgres.Config{
		Addresses: []string{"db1", "/run/postgresql"}, ClientKey: "k", Plaintext: true,
		RootCert: "r",
	}
	_, err = got.Complete()
	for _, want := range []string{
		"stateFile and postgres: the state is in one place", "keyFile is missing", "configCopies is missing",
		`postgres: addresses: "db1" is neither host:port`,
		`postgres: addresses: "/run/postgresql" is the folder of a socket`,
		"postgres: database is missing", "postgres: user is missing", "postgres: clientCert and clientKey go together",
		"postgres: plaintext leaves TLS out",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("configDir: x\nlog: {level: debug}\n")
	f.Add("a: &a [*a]\n")
	f.Add("log: *x\n")
	f.Add("names: {ips: [300.1.1.1]}\n")
	f.Fuzz(func(_ *testing.T, in string) {
		c := Default()
		if _, err := strictyaml.ReadSettings("control.yaml", []byte(in), &c); err == nil {
			_, _ = c.Complete() // any answer will do, as long as there is one
		}
	})
}

// An abstract name has no owner and no mode; it is refused before anything is made.
func TestAbstractSocketIsRefused(t *testing.T) {
	c := Default()
	c.ConfigDir, c.StateFile, c.Socket = "/etc/isthmus", "/var/lib/isthmus/state.db", "@isthmus"
	if _, err := c.Complete(); err == nil || !strings.Contains(err.Error(), `socket: "@isthmus" is an abstract name`) ||
		!strings.Contains(err.Error(), "name a file") {
		t.Errorf("got %v", err)
	}
}
