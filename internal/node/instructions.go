package node

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/durable"
)

// applyInstructions applies what the control plane instructs, and saves it for an agent that starts while the control
// plane is away.
func (a *Agent) applyInstructions(in *agentapi.Instructions) {
	a.revoked.Store(&in.RevokedAdmins)
	a.plaintext.Store(&in.Plaintext)
	a.reportChanged() // the report on plaintext depends on it
	a.dns.SetTables(in.DNS)
	a.sds.Limit(in.CertificateTTL)
	a.learnRoots(in)
	a.control.SignedBy(in.SigningRoot)
	a.sds.SignedBy(in.SigningRoot)
	a.sayRefused(in.Refused)
	text, err := json.Marshal(in)
	if err == nil {
		err = durable.WriteFile(a.instructionsFile(), text)
	}
	if err != nil {
		a.log.Error("instructions not saved", "file", a.instructionsFile(), "error", err)
	}
}

// sayRefused logs, once each, what the control plane rejects of this agent's report.
func (a *Agent) sayRefused(findings []string) {
	for _, f := range findings {
		if !slices.Contains(a.rejected, f) {
			a.log.Warn("the control plane does not accept all of this node's report", "finding", f)
		}
	}
	if len(a.rejected) > 0 && len(findings) == 0 {
		a.log.Info("the control plane accepts all of this node's report")
	}
	a.rejected = findings
}

// loadInstructions applies the saved instructions. An unreadable file does not matter, since the control plane repeats
// them.
func (a *Agent) loadInstructions() {
	text, err := os.ReadFile(a.instructionsFile())
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var in agentapi.Instructions
	if err == nil {
		err = json.Unmarshal(text, &in)
	}
	if err != nil {
		a.log.Warn("saved instructions not read, waiting for the control plane's",
			"file", a.instructionsFile(), "error", err)
		return
	}
	a.revoked.Store(&in.RevokedAdmins)
	a.plaintext.Store(&in.Plaintext)
	a.dns.SetTables(in.DNS)
}

func (a *Agent) instructionsFile() string { return filepath.Join(a.cfg.StateDir, "instructions.json") }
