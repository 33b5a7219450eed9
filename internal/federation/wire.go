package federation

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/spiffe"
)

// MaxPeeringBytes limits a peering request and its answer.
const MaxPeeringBytes = MaxBundleBytes + 64<<10

// self is how a mesh introduces itself to another, in a peering request and in the answer.
type self struct {
	TrustDomain string           `json:"trustDomain"`
	KnownAs     string           `json:"knownAs"` // the name that the sender gives the receiver
	Bundle      json.RawMessage  `json:"bundle"`
	Addresses   []netip.AddrPort `json:"gatewayAddresses"`
	GatewayIDs  []string         `json:"gatewayIDs"`
}

// peeringRequest accepts an invitation.
type peeringRequest struct {
	Secret  string `json:"secret"`
	Nonce   string `json:"nonce"`   // identifies this acceptance, so that it can be repeated if the answer was lost
	Expects string `json:"expects"` // fingerprint of the inviter's mesh in the token
	self
}

// introduction is a parsed and checked self.
type introduction struct {
	TrustDomain spiffe.TrustDomain
	KnownAs     string
	Bundle      Bundle
	Addresses   []netip.AddrPort
	GatewayIDs  []string
}

func (s self) read(now time.Time) (introduction, error) {
	td, err := spiffe.ParseTrustDomain(s.TrustDomain)
	if err != nil || td.Name() != s.TrustDomain {
		return introduction{}, errors.New("the trust domain is not one")
	}
	if !isLabel(s.KnownAs) {
		return introduction{}, errors.New("knownAs is no DNS label")
	}
	if err := checkAddresses(s.Addresses); err != nil {
		return introduction{}, fmt.Errorf("the gateway addresses cannot be used: %w", err)
	}
	if err := checkGatewayIDs(s.GatewayIDs, td); err != nil {
		return introduction{}, err
	}
	b, err := ParseBundle(td, s.Bundle, now)
	if err != nil {
		return introduction{}, err
	}
	return introduction{
		TrustDomain: td, KnownAs: s.KnownAs, Bundle: b, Addresses: s.Addresses, GatewayIDs: s.GatewayIDs,
	}, nil
}

func checkGatewayIDs(ids []string, td spiffe.TrustDomain) error {
	if len(ids) == 0 || len(ids) > maxGateways {
		return fmt.Errorf("between 1 and %d gateway identities are needed", maxGateways)
	}
	for i, s := range ids {
		id, err := spiffe.Parse(s)
		if err != nil || len(s) > 2048 || id.String() != s || id.Path() == "" {
			return fmt.Errorf("gateway identity %d is no SPIFFE ID of a workload", i+1)
		}
		if id.TrustDomain() != td {
			return fmt.Errorf("gateway identity %s lies outside of trust domain %s", s, td.Name())
		}
		if slices.Index(ids, s) != i {
			return fmt.Errorf("gateway identity %s stands there twice", s)
		}
	}
	return nil
}

// digest identifies a request when it is repeated. It omits the secret, which is compared separately.
func (r peeringRequest) digest() string {
	r.Secret = ""
	raw, err := json.Marshal(r)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// fingerprint returns the fingerprint of the introduced mesh.
func (i introduction) fingerprint() string {
	return peerrules.MeshFingerprint(i.TrustDomain.Name(), i.Bundle.Roots, i.GatewayIDs, texts(i.Addresses))
}

func texts(addrs []netip.AddrPort) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// refusal is the error answer of the peering server.
type refusal struct {
	Code     string `json:"code"`
	Message  string `json:"message"`
	Sequence uint64 `json:"sequence,omitempty"` // of the stored catalogue, if the one sent was not newer
}

func (r refusal) Error() string { return r.Message }
