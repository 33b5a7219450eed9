package state

import "time"

// Blob is one piece of CA material: a certificate and its private key, encrypted by the CA.
type Blob struct {
	Name    string
	Cert    []byte // DER
	Key     []byte // encrypted; empty where the operator keeps the key
	Created time.Time
}

// Cert is one issued certificate.
type Cert struct {
	Serial      string // hex
	SPIFFEID    string
	Node        string // that asked for it, empty for the control plane's own
	Fingerprint string // SHA-256 of the DER, hex
	NotBefore   time.Time
	NotAfter    time.Time
	Root        string // SHA-256 of the root that it leads to, hex; empty when that is not known
}

// CertFilter selects issued certificates; empty fields select all.
type CertFilter struct {
	Node     string
	SPIFFEID string
	ValidAt  time.Time // still valid then
	Limit    int       // 0: 1000
}

// CertUse is the longest-lived certificate that one identity got at one node.
type CertUse struct {
	Node     string // empty for the control plane's own and administrators'
	SPIFFEID string
	NotAfter time.Time
}

// Admin is one certificate of an administrator.
type Admin struct {
	Generation string // that the certificate carries
	Name       string
	Serial     string // hex
	Created    time.Time
	MadeBy     string
	NotAfter   time.Time
	Revoked    time.Time // zero: not
}

// Rotation is how far the change from one root to the next has come. The CA names the steps.
type Rotation struct {
	Step    string
	OldRoot string // SHA-256 of the DER, hex
	NewRoot string
	Signing string // the root that signs, SHA-256 of the DER, hex
	Began   time.Time
	Since   time.Time // when Step began
	// Passed names whom an administrator left behind, in words.
	Passed []string
}
