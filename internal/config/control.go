// Package config loads the settings of the control plane process from one strict YAML file. It reads no environment
// variables. The mesh itself is described by objects in the configuration folder.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"isthmus.dev/isthmus/internal/state/postgres"
	"isthmus.dev/isthmus/internal/strictyaml"
	"isthmus.dev/isthmus/internal/unixsocket"
)

// Control holds the settings of `isthmus control`.
type Control struct {
	// ConfigDir is the folder of YAML files that describe the mesh. Required.
	ConfigDir string `yaml:"configDir"`
	// StateFile is the SQLite file for everything that is not configuration. Required without Postgres.
	StateFile string `yaml:"stateFile"`
	// Postgres is the database to use instead of StateFile, for several control planes of one mesh.
	Postgres postgres.Config `yaml:"postgres"`
	// KeyFile holds the key that encrypts private keys in the state. It is created with mode 0600 if absent. Default:
	// StateFile + ".key". With Postgres it is required and must be the same for all control planes.
	KeyFile string `yaml:"keyFile"`
	// ConfigCopies is a folder for copies of the last valid configuration. Default: StateFile + ".config"; required
	// with Postgres.
	ConfigCopies string `yaml:"configCopies"`
	// Socket is the Unix socket of the administration API.
	Socket string `yaml:"socket"`
	// AgentAddress is where agents and remote administrators connect, with mutual TLS.
	AgentAddress string `yaml:"agentAddress"`
	// PeeringAddress is where this mesh's gateways forward peers' control traffic, with mutual TLS.
	PeeringAddress string `yaml:"peeringAddress"`
	// MetricsAddress serves Prometheus metrics with mutual TLS.
	MetricsAddress string `yaml:"metricsAddress"`
	// HealthAddress serves only /healthz and /readyz, in plaintext: keep it on loopback.
	HealthAddress string `yaml:"healthAddress"`
	// Names are further names by which agents reach the control plane, besides its listening addresses.
	Names Names `yaml:"names"`
	// CA is the operator's own certificate authority. If empty, Isthmus makes and keeps one.
	CA CA `yaml:"ca"`
	// Log sets the level and format of the log.
	Log Log `yaml:"log"`
}

// Names are additional names in the control plane's certificate, and the addresses in join tokens.
type Names struct {
	DNS []string     `yaml:"dns"`
	IPs []netip.Addr `yaml:"ips"`
}

// CA names PEM files of an operator's authority. With a root key, Isthmus signs its own intermediates. With an
// intermediate and its key, the root key stays elsewhere.
type CA struct {
	RootCert         string `yaml:"rootCert"`
	RootKey          string `yaml:"rootKey"`
	IntermediateCert string `yaml:"intermediateCert"`
	IntermediateKey  string `yaml:"intermediateKey"`
}

// Log settings.
type Log struct {
	Level  slog.Level `yaml:"level"`  // debug, info, warn, error
	Format string     `yaml:"format"` // text or json
}

// Default returns the default settings.
func Default() Control {
	return Control{
		Socket:         "/run/isthmus/control/control.sock",
		AgentAddress:   ":15012",
		PeeringAddress: ":15013",
		MetricsAddress: ":15020",
		HealthAddress:  "127.0.0.1:15021",
		Log:            Log{Level: slog.LevelInfo, Format: "text"},
	}
}

// Load reads the settings. It refuses unknown keys, duplicate keys and values of the wrong type. The result is not
// validated yet, because flags may still change it.
func Load(path string) (Control, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Control{}, fmt.Errorf("read settings: %w", err)
	}
	cfg := Default()
	if _, err := strictyaml.ReadSettings(path, text, &cfg); err != nil {
		return Control{}, err
	}
	dir := filepath.Dir(path)
	for _, p := range []*string{
		&cfg.ConfigDir, &cfg.StateFile, &cfg.KeyFile, &cfg.ConfigCopies, &cfg.Socket,
		&cfg.Postgres.PasswordFile, &cfg.Postgres.RootCert, &cfg.Postgres.ClientCert, &cfg.Postgres.ClientKey,
		&cfg.CA.RootCert, &cfg.CA.RootKey, &cfg.CA.IntermediateCert, &cfg.CA.IntermediateKey,
	} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p) // relative to the settings file, wherever the command is started
		}
	}
	return cfg, nil
}

// Complete fills in derived settings. Its error lists everything that is invalid.
func (c Control) Complete() (Control, error) {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.ConfigDir == "" {
		refuse("configDir is missing: name the folder of YAML that describes the mesh (--config-dir DIR)")
	}
	errs = append(errs, c.completeState()...)
	for _, a := range []struct{ key, value string }{
		{"agentAddress", c.AgentAddress},
		{"peeringAddress", c.PeeringAddress},
		{"metricsAddress", c.MetricsAddress},
		{"healthAddress", c.HealthAddress},
	} {
		if _, _, err := net.SplitHostPort(a.value); err != nil {
			refuse("%s: %q is not host:port; for example %q", a.key, a.value, ":15012")
		}
	}
	if c.Socket != "" && !strings.HasPrefix(c.Socket, "@") {
		if abs, err := filepath.Abs(c.Socket); err == nil {
			c.Socket = abs
		}
	}
	if err := unixsocket.Check(c.Socket); err != nil {
		refuse("socket: %s", err)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		refuse("log.format: %q is neither text nor json", c.Log.Format)
	}
	errs = append(errs, c.CA.check()...)
	if len(errs) > 0 {
		return Control{}, errors.Join(errs...)
	}
	return c, nil
}

// completeState does so for the settings of the state.
func (c *Control) completeState() (errs []error) {
	if !c.Postgres.Set() {
		if c.StateFile == "" {
			return []error{errors.New("stateFile is missing: name the file in which the control plane keeps its state (--state FILE)")}
		}
		c.KeyFile = cmp.Or(c.KeyFile, c.StateFile+".key")
		c.ConfigCopies = cmp.Or(c.ConfigCopies, c.StateFile+".config")
		return nil
	}
	for _, err := range c.Postgres.Check() {
		errs = append(errs, fmt.Errorf("postgres: %w", err))
	}
	if c.StateFile != "" {
		errs = append(errs, errors.New("stateFile and postgres: the state is in one place; remove one of them"))
	}
	if c.KeyFile == "" {
		errs = append(errs,
			errors.New("keyFile is missing: with postgres, name the file of the key that encrypts private keys, "+
				"the same for every control plane of the mesh"))
	}
	if c.ConfigCopies == "" {
		errs = append(errs,
			errors.New("configCopies is missing: with postgres, name a folder of this control plane's own in which "+
				"it keeps the last good configuration"))
	}
	return errs
}

func (ca CA) check() []error {
	var errs []error
	if ca.RootCert == "" && (ca.RootKey != "" || ca.IntermediateCert != "" || ca.IntermediateKey != "") {
		errs = append(errs,
			errors.New("ca.rootCert is missing: an operator's authority needs its root certificate; add it, or leave all of ca out"))
	}
	if (ca.IntermediateCert == "") != (ca.IntermediateKey == "") {
		errs = append(errs, errors.New("ca: intermediateCert and intermediateKey go together: give both or neither"))
	}
	if ca.RootCert != "" && ca.RootKey == "" && ca.IntermediateKey == "" {
		errs = append(errs,
			errors.New("ca: nothing here can sign: add rootKey, or intermediateCert and intermediateKey"))
	}
	return errs
}
