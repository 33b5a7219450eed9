package state

import "time"

// Blob is one piece of CA material: a certificate and its private key, encrypted by the CA.
type Blob struct {
	Name    string
	Cert    []byte // DER
	Key     []byte // encrypted; empty if the operator keeps the key
	Created time.Time
}

// Cert is one issued certificate.
type Cert struct {
	Serial      string // hex
	SPIFFEID    string
	Node        string // the requesting node; empty for the control plane's own
	Fingerprint string // SHA-256 of the DER, hex
	NotBefore   time.Time
	NotAfter    time.Time
	Root        string // SHA-256 of the root that it chains to, hex; empty if unknown
}

// CertFilter selects issued certificates. Empty fields match all.
type CertFilter struct {
	Node     string
	SPIFFEID string
	ValidAt  time.Time // still valid at this time
	Limit    int       // 0: 1000
}

// CertUse is the longest-lived certificate of one identity at one node.
type CertUse struct {
	Node     string // empty for the control plane's own and administrators'
	SPIFFEID string
	NotAfter time.Time
}

// Admin is one administrator certificate.
type Admin struct {
	Generation string // in the certificate's serial number
	Name       string
	Serial     string // hex
	Created    time.Time
	MadeBy     string
	NotAfter   time.Time
	Revoked    time.Time // zero: not revoked
}

// Rotation is the progress of a root rotation. The CA defines the steps.
type Rotation struct {
	Step    string
	OldRoot string // SHA-256 of the DER, hex
	NewRoot string
	Signing string // the signing root, SHA-256 of the DER, hex
	Began   time.Time
	Since   time.Time // when Step began
	// Passed names the participants that an administrator chose not to wait for.
	Passed []string
}
