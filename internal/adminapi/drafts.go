package adminapi

import (
	"time"

	"isthmus.dev/isthmus/internal/finding"
)

// ImportDraftRequest asks for the objects that an import takes.
type ImportDraftRequest struct {
	Peer    string   `json:"peer"`
	Name    string   `json:"name"`         // as the peer offers it: name, or namespace/name
	As      string   `json:"as,omitempty"` // namespace/name here; default: as the peer offers it
	Callers []string `json:"callers"`      // service accounts, "account" or "namespace/account"
}

// ExportDraftRequest asks for the objects that an export takes.
type ExportDraftRequest struct {
	Service string   `json:"service"` // name, namespace/name or host, each with ":port" where it has several
	Peer    string   `json:"peer"`
	As      string   `json:"as,omitempty"` // alias
	Callers []string `json:"callers"`      // SPIFFE IDs, or "namespace/account" of the peer
	Methods []string `json:"methods"`
	Paths   []string `json:"paths"`
}

// DraftResponse are objects to be written. Nothing is in force by it.
type DraftResponse struct {
	YAML     string            `json:"yaml"`
	File     string            `json:"file"` // a name for the file
	Objects  []DraftedObject   `json:"objects"`
	Findings []finding.Finding `json:"findings"` // that they would bring about
	Notes    []string          `json:"notes"`    // what they mean, where that is more than was asked for
}

// DraftedObject is one of them.
type DraftedObject struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Stands    string `json:"stands,omitempty"` // file and line where an object of this name is written already
	Same      bool   `json:"same"`             // and that says the same
}

// PeerTermsRequest changes how long a peering made by token holds. What is not given stays.
type PeerTermsRequest struct {
	Peer         string        `json:"peer"`
	MaxBundleAge time.Duration `json:"maxBundleAge,omitempty"`
	ExpiresAt    time.Time     `json:"expiresAt,omitzero"`
	Never        bool          `json:"never,omitempty"` // expires, whatever was said before
}

// PeerTermsResponse is how long it holds from now on.
type PeerTermsResponse struct {
	Peer         string        `json:"peer"`
	MaxBundleAge time.Duration `json:"maxBundleAge"`
	ExpiresAt    time.Time     `json:"expiresAt,omitzero"` // zero: never
}
