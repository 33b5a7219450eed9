package ca

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// Errors of join tokens. Tell the caller no more than ErrToken. The state records the reason.
var (
	ErrToken          = errors.New("join token refused")
	ErrTokenMalformed = fmt.Errorf("%w: malformed", ErrToken)
	ErrTokenUnknown   = fmt.Errorf("%w: unknown", ErrToken)
	ErrTokenUsed      = fmt.Errorf("%w: used already", ErrToken)
	ErrTokenExpired   = fmt.Errorf("%w: expired", ErrToken)
)

const (
	tokenPrefix     = "isthmus-join-v1."
	tokenMaxLength  = 8 << 10
	tokenMaxAddrs   = 16
	tokenDefaultTTL = 15 * time.Minute
	tokenMaxTTL     = 30 * 24 * time.Hour
)

var (
	tokenID   = regexp.MustCompile(`^[0-9a-f]{16}$`)
	sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)
	dnsLabel  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// TokenSpec describes a join token to create.
type TokenSpec struct {
	Node      string
	Role      snapshot.Role
	Grant     grant.Grant   // a node without addresses gets the private ranges
	TTL       time.Duration // default 15 min
	Addresses []string      // host:port of the control plane
	MadeBy    string        // for the record
}

// IssuedToken is a new join token. Show it only once.
type IssuedToken struct {
	ID      string
	Token   Secret
	Expires time.Time
}

// Token is a parsed join token.
type Token struct {
	ID          string
	Secret      Secret
	Node        string // node name
	Role        snapshot.Role
	Fingerprint string   // of the mesh's root, SHA-256 hex; authenticates the server
	Addresses   []string // host:port of the control plane
}

// TokenGrant is what a redeemed token grants.
type TokenGrant struct {
	ID    string
	Node  string
	Role  snapshot.Role
	Grant grant.Grant
}

// tokenText is the JSON inside a token.
type tokenText struct {
	ID          string        `json:"id"`
	Secret      string        `json:"secret"`
	Node        string        `json:"node"`
	Role        snapshot.Role `json:"role"`
	Fingerprint string        `json:"fingerprint"`
	Addresses   []string      `json:"addresses"`
}

// CreateToken creates a one-time join token for one node. The state stores only a hash of its secret.
func (a *Authority) CreateToken(ctx context.Context, spec TokenSpec) (IssuedToken, error) {
	spec.TTL = durationOr(spec.TTL, tokenDefaultTTL)
	if spec.Role == snapshot.RoleNode && len(spec.Grant.Addresses) == 0 {
		spec.Grant.Addresses = grant.Private()
	}
	if err := spec.check(); err != nil {
		return IssuedToken{}, fmt.Errorf("create join token: %w", err)
	}
	id, secret := make([]byte, 8), make([]byte, 32)
	rand.Read(id) // never fails
	rand.Read(secret)
	text := tokenText{
		ID: hex.EncodeToString(id), Secret: base64.RawURLEncoding.EncodeToString(secret),
		Node: spec.Node, Role: spec.Role, Fingerprint: a.RootFingerprint(), Addresses: spec.Addresses,
	}
	body, err := json.Marshal(text)
	if err != nil {
		return IssuedToken{}, fmt.Errorf("create join token: %w", err)
	}
	now := a.now()
	t := state.Token{
		ID: text.ID, Hash: sha256.Sum256([]byte(text.Secret)), Node: spec.Node, Role: spec.Role, Grant: spec.Grant,
		Created: now, MadeBy: spec.MadeBy, Expires: now.Add(spec.TTL),
	}
	if err := a.cfg.Store.AddToken(ctx, t); err != nil {
		return IssuedToken{}, fmt.Errorf("create join token: %w", err)
	}
	return IssuedToken{
		ID: t.ID, Token: NewSecret(tokenPrefix + base64.RawURLEncoding.EncodeToString(body)), Expires: t.Expires,
	}, nil
}

func (s TokenSpec) check() error {
	if !dnsLabel.MatchString(s.Node) {
		return fmt.Errorf("node name %q: use at most 63 lower-case letters, digits and hyphens, with a letter or digit at both ends", s.Node)
	}
	if s.Role != snapshot.RoleNode && s.Role != snapshot.RoleGateway {
		return fmt.Errorf("role %q: say %s or %s", s.Role, snapshot.RoleNode, snapshot.RoleGateway)
	}
	if s.TTL > tokenMaxTTL {
		return fmt.Errorf("life %s: say at most %s", s.TTL, tokenMaxTTL)
	}
	if err := s.Grant.Check(s.Role); err != nil {
		return err
	}
	return checkAddresses(s.Addresses)
}

func checkAddresses(addrs []string) error {
	if len(addrs) == 0 || len(addrs) > tokenMaxAddrs {
		return fmt.Errorf("%d addresses of the control plane: give 1 to %d, each host:port", len(addrs), tokenMaxAddrs)
	}
	for _, a := range addrs {
		host, port, err := net.SplitHostPort(a)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil || n == 0 || host == "" || len(host) > 253 {
			return fmt.Errorf("address %q of the control plane: say host:port", a)
		}
	}
	return nil
}

// ParseToken parses a join token. Its errors never quote the token.
func ParseToken(token string) (Token, error) {
	token = strings.TrimSpace(token)
	body, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok || len(token) > tokenMaxLength {
		return Token{},
			fmt.Errorf("%w: it must begin with %q and have at most %d characters: copy it whole, as `isthmus token create` printed it", ErrTokenMalformed, tokenPrefix, tokenMaxLength)
	}
	damaged := fmt.Errorf("%w: it was cut off or changed: copy it whole, as `isthmus token create` printed it",
		ErrTokenMalformed)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return Token{}, damaged
	}
	var text tokenText
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&text); err != nil {
		return Token{}, damaged
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Token{}, damaged
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(text.Secret)
	if err != nil || len(secret) != 32 || !tokenID.MatchString(text.ID) || !sha256Hex.MatchString(text.Fingerprint) ||
		checkAddresses(text.Addresses) != nil {
		return Token{}, damaged
	}
	return Token{
		ID: text.ID, Secret: NewSecret(text.Secret), Node: text.Node, Role: text.Role, Fingerprint: text.Fingerprint,
		Addresses: text.Addresses,
	}, nil
}

// Redeem uses up a join token. from identifies the caller for the record.
func (a *Authority) Redeem(ctx context.Context, token, from string) (TokenGrant, error) {
	t, err := ParseToken(token)
	if err != nil {
		return TokenGrant{}, err
	}
	used, err := a.cfg.Store.UseToken(ctx, t.ID, sha256.Sum256([]byte(t.Secret.Reveal())), from, a.now())
	if err != nil {
		return TokenGrant{}, tokenError(err)
	}
	return TokenGrant{ID: used.ID, Node: used.Node, Role: used.Role, Grant: used.Grant}, nil
}

// tokenError maps the store's errors. A wrong secret looks like an unknown token.
func tokenError(err error) error {
	for _, r := range []struct{ store, ours error }{
		{state.ErrNotFound, ErrTokenUnknown},
		{state.ErrSecret, ErrTokenUnknown},
		{state.ErrUsed, ErrTokenUsed},
		{state.ErrExpired, ErrTokenExpired},
	} {
		if errors.Is(err, r.store) {
			return fmt.Errorf("%w: %w", r.ours, err)
		}
	}
	return fmt.Errorf("redeem join token: %w", err)
}
