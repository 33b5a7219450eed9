package federation

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/reserved"
	"isthmus.dev/isthmus/internal/spiffe"
)

// TokenPrefix starts every invitation token. The number is the format's version.
const TokenPrefix = "isthmus-peer-v1."

// MaxInviteTTL limits how long an invitation stays open.
const MaxInviteTTL = 15 * time.Minute

const (
	maxTokenBytes = 16 << 10
	maxGateways   = 16
)

// Token is an invitation as passed from one administrator to another.
type Token struct {
	TrustDomain spiffe.TrustDomain
	Name        string           // proposed by the inviter for itself
	KnownAs     string           // the name that the inviter gives the acceptor
	Addresses   []netip.AddrPort // of the inviter's gateways
	GatewayIDs  []string         // one of these must answer there
	InviteID    string
	Secret      Secret
	Root        string // SHA-256 of the inviter's root, hex
	Fingerprint string // of the inviter's mesh (peerrules.MeshFingerprint); its introduction must match
	Expires     time.Time
}

type tokenJSON struct {
	TrustDomain string           `json:"td"`
	Name        string           `json:"name"`
	KnownAs     string           `json:"as"`
	Addresses   []netip.AddrPort `json:"addrs"`
	GatewayIDs  []string         `json:"gateways"`
	InviteID    string           `json:"id"`
	Secret      string           `json:"secret"`
	Root        string           `json:"root"`
	Fingerprint string           `json:"mesh"`
	Expires     int64            `json:"exp"`
}

// String does not reveal the token, which contains a secret.
func (t Token) String() string { return TokenPrefix + redacted }

// Encode returns the token text. Show it once and never log it.
func (t Token) Encode() string {
	raw, err := json.Marshal(tokenJSON{
		TrustDomain: t.TrustDomain.Name(), Name: t.Name, KnownAs: t.KnownAs, Addresses: t.Addresses,
		GatewayIDs: t.GatewayIDs, InviteID: t.InviteID, Secret: t.Secret.Reveal(), Root: t.Root,
		Fingerprint: t.Fingerprint, Expires: t.Expires.Unix(),
	})
	if err != nil {
		return "" // cannot fail: strings and addresses only
	}
	return TokenPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

// ParseToken parses a token and checks its form but not its age. Its errors never quote it.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	body, ok := strings.CutPrefix(text, TokenPrefix)
	switch {
	case text == "":
		return Token{}, errors.New("the token is empty: paste what 'isthmus peer invite' printed at the other mesh")
	case len(text) > maxTokenBytes:
		return Token{}, fmt.Errorf("the token is longer than %d bytes: paste only what 'isthmus peer invite' printed",
			maxTokenBytes)
	case strings.HasPrefix(text, "isthmus-join-"):
		return Token{},
			errors.New("this is a token for a node of this mesh, not for a peer: use it with 'isthmus node' or 'isthmus gateway', " +
				"and ask the other mesh for the output of 'isthmus peer invite'")
	case !ok && strings.HasPrefix(text, "isthmus-peer-"):
		return Token{},
			errors.New("the token is of a format that this version does not know: run the same version of isthmus on both sides")
	case !ok:
		return Token{}, fmt.Errorf("a peering token begins with %q: paste all of what 'isthmus peer invite' printed",
			TokenPrefix)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return Token{}, errDamaged
	}
	var j tokenJSON
	if err := strictJSON(raw, &j); err != nil {
		return Token{}, errDamaged
	}
	return j.token()
}

var errDamaged = errors.New("the token is damaged (cut short, or changed on the way): copy it again, or ask for a new one")

func (j tokenJSON) token() (Token, error) {
	wrong := func(what string) (Token, error) {
		return Token{}, fmt.Errorf("the token's %s: ask the other mesh for a new one", what)
	}
	td, err := spiffe.ParseTrustDomain(j.TrustDomain)
	if err != nil || td.Name() != j.TrustDomain {
		return wrong("trust domain is not one")
	}
	secret, err := ParseSecret(j.Secret)
	if err != nil {
		return wrong("secret cannot be read")
	}
	if err := checkAddresses(j.Addresses); err != nil {
		return wrong("gateway addresses cannot be used: " + err.Error())
	}
	if err := checkGatewayIDs(j.GatewayIDs, td); err != nil {
		return wrong("gateway identities cannot be used: " + err.Error())
	}
	switch {
	case !isLabel(j.Name):
		return wrong("proposed name is no DNS label")
	case !isLabel(j.KnownAs):
		return wrong("name for this mesh is no DNS label")
	case !isInviteID(j.InviteID):
		return wrong("invitation id is not one")
	case !isFingerprint(j.Root):
		return wrong("root fingerprint is not 64 lower-case hex digits")
	case !isFingerprint(j.Fingerprint):
		return wrong("mesh fingerprint is not 64 lower-case hex digits")
	case j.Expires <= 0 || j.Expires > 1<<40:
		return wrong("expiry is not a time")
	}
	return Token{
		TrustDomain: td, Name: j.Name, KnownAs: j.KnownAs, Addresses: j.Addresses, GatewayIDs: j.GatewayIDs,
		InviteID: j.InviteID, Secret: secret, Root: j.Root, Fingerprint: j.Fingerprint,
		Expires: time.Unix(j.Expires, 0).UTC(),
	}, nil
}

// checkAddresses refuses gateway addresses that no gateway of another mesh can have.
func checkAddresses(addrs []netip.AddrPort) error {
	switch {
	case len(addrs) == 0:
		return errors.New("there is none")
	case len(addrs) > maxGateways:
		return fmt.Errorf("more than %d", maxGateways)
	}
	for i, a := range addrs {
		switch {
		case !a.IsValid() || a.Port() == 0 || a.Addr().Zone() != "":
			return fmt.Errorf("number %d is not ip:port", i+1)
		case reserved.Address(a.Addr()) != "", reserved.GatewayPort(a.Port()) != "":
			return fmt.Errorf("%s cannot be reached from another mesh", a)
		case slices.Index(addrs, a) != i:
			return fmt.Errorf("%s stands there twice", a)
		}
	}
	return nil
}

// strictJSON decodes exactly one JSON value and refuses unknown fields.
func strictJSON(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows after the JSON value")
	}
	return nil
}
