package postgres

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Config says how to reach the database. A password can only be given in a file.
type Config struct {
	// Addresses are host:port of the servers of one database; the one that accepts writes is used. A single absolute
	// path is the folder of a Unix socket.
	Addresses []string `yaml:"addresses"`
	Database  string   `yaml:"database"`
	User      string   `yaml:"user"`
	// PasswordFile holds only the password. It is read for each connection.
	PasswordFile string `yaml:"passwordFile"`
	// RootCert is a PEM file of the roots for the servers' certificates. Empty: the host's roots.
	RootCert string `yaml:"rootCert"`
	// ClientCert and ClientKey are PEM files with which this control plane authenticates to the server.
	ClientCert string `yaml:"clientCert"`
	ClientKey  string `yaml:"clientKey"`
	// Plaintext disables TLS. Use it only on a network that nobody else can read or write.
	Plaintext bool `yaml:"plaintext"`
}

// Set reports whether any setting is given.
func (c Config) Set() bool { return !reflect.ValueOf(c).IsZero() }

// Check returns what is wrong with the settings.
func (c Config) Check() (wrong []error) {
	refuse := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if len(c.Addresses) == 0 {
		refuse("addresses is missing: name the database server as host:port, or the folder of its socket")
	}
	for _, a := range c.Addresses {
		if filepath.IsAbs(a) && len(c.Addresses) > 1 {
			refuse("addresses: %q is the folder of a socket: it must be the only one", a)
		} else if _, _, err := net.SplitHostPort(a); err != nil && !filepath.IsAbs(a) {
			refuse("addresses: %q is neither host:port nor the folder of a socket; for example db.example:5432", a)
		}
	}
	if c.Database == "" {
		refuse("database is missing: name the database that holds the state")
	}
	if c.User == "" {
		refuse("user is missing: name the database user that owns it")
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		refuse("clientCert and clientKey go together: give both or neither")
	}
	if c.Plaintext && c.RootCert != "" {
		refuse("plaintext leaves TLS out, and rootCert asks for it: remove one of them")
	}
	return wrong
}

// place describes where the database is.
func (c Config) place() string {
	return fmt.Sprintf("PostgreSQL database %s at %s", c.Database, strings.Join(c.Addresses, ", "))
}

// connection returns pgx's configuration. It ignores the environment.
func (c Config) connection() (*pgx.ConnConfig, error) {
	var hosts, ports []string
	mode := "verify-full"
	for _, a := range c.Addresses {
		if filepath.IsAbs(a) {
			hosts, ports, mode = []string{a}, []string{"5432"}, "disable"
			break
		}
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return nil, err
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	if c.Plaintext {
		mode = "disable"
	}
	settings := []string{
		"host", strings.Join(hosts, ","), "port", strings.Join(ports, ","), "dbname", c.Database, "user", c.User,
		"password", "", "passfile", os.DevNull, "sslmode", mode, "sslrootcert", c.RootCert, "sslcert", c.ClientCert,
		"sslkey", c.ClientKey, "connect_timeout", "5", "target_session_attrs", "read-write",
	}
	var words []string
	for i := 0; i < len(settings); i += 2 {
		words = append(words, settings[i]+"='"+quoter.Replace(settings[i+1])+"'")
	}
	cfg, err := pgx.ParseConfig(strings.Join(words, " "))
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams = map[string]string{
		"application_name": "isthmus", "client_encoding": "UTF8",
		// A hanging statement must release the lock.
		"statement_timeout": "30s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "5s",
		"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3",
	}
	return cfg, nil
}

var quoter = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

// authenticate reads the password before each connection.
func (c Config) authenticate(_ context.Context, cfg *pgx.ConnConfig) error {
	if c.PasswordFile == "" {
		return nil
	}
	b, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return fmt.Errorf("read the database's password: %w", err)
	}
	cfg.Password = strings.TrimRight(string(b), "\r\n")
	return nil
}
