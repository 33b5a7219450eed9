package adminapi

import (
	"time"

	"isthmus.dev/isthmus/internal/finding"
)

// ImportDraftRequest asks for the objects that an import needs.
type ImportDraftRequest struct {
	Peer    string   `json:"peer"`
	Name    string   `json:"name"`         // the peer's name for it: name or namespace/name
	As      string   `json:"as,omitempty"` // namespace/name here; default: as at the peer
	Callers []string `json:"callers"`      // service accounts: "account" or "namespace/account"
}

// ExportDraftRequest asks for the objects that an export needs.
type ExportDraftRequest struct {
	Service string   `json:"service"` // name, namespace/name or host, each with ":port" if it has several ports
	Peer    string   `json:"peer"`
	As      string   `json:"as,omitempty"` // alias
	Callers []string `json:"callers"`      // SPIFFE IDs, or "namespace/account" at the peer
	Methods []string `json:"methods"`
	Paths   []string `json:"paths"`
}

// DraftResponse contains objects to write to a file. They are not in effect.
type DraftResponse struct {
	YAML     string            `json:"yaml"`
	File     string            `json:"file"` // suggested file name
	Objects  []DraftedObject   `json:"objects"`
	Findings []finding.Finding `json:"findings"` // findings that the objects would cause
	Notes    []string          `json:"notes"`    // consequences that go beyond the request
}

// DraftedObject is one object of a draft.
type DraftedObject struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Stands    string `json:"stands,omitempty"` // file and line of an existing object of this name
	Same      bool   `json:"same"`             // the existing object has the same content
}

// PeerTermsRequest changes how long a peering by token lasts. Unset fields change nothing.
type PeerTermsRequest struct {
	Peer         string        `json:"peer"`
	MaxBundleAge time.Duration `json:"maxBundleAge,omitempty"`
	ExpiresAt    time.Time     `json:"expiresAt,omitzero"`
	Never        bool          `json:"never,omitempty"` // never expires, overriding an earlier setting
}

// PeerTermsResponse returns how long the peering lasts now.
type PeerTermsResponse struct {
	Peer         string        `json:"peer"`
	MaxBundleAge time.Duration `json:"maxBundleAge"`
	ExpiresAt    time.Time     `json:"expiresAt,omitzero"` // zero: never
}
