package control

import (
	"crypto/x509"
	"slices"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/spiffe"
)

// SetRoots sets the mesh's present roots, which verify the control plane from the next connection on. From then on the
// roots that come with the node's certificate do not count, since they may be older.
func (c *Client) SetRoots(roots []*x509.Certificate) {
	c.mu.Lock()
	c.latestRoots = roots
	c.mu.Unlock()
	svid := c.svid.Load()
	if svid == nil || slices.EqualFunc(svid.Roots, roots, (*x509.Certificate).Equal) {
		return
	}
	c.setCertificate(svid)
}

// SignedBy sets the root under which certificates are issued now. A node certificate under another root is replaced
// soon.
func (c *Client) SignedBy(root string) { c.signing.Set(root, c.cfg.Now()) }

// setCertificate uses a certificate with the newest roots, unless a newer certificate has come.
func (c *Client) setCertificate(svid *identity.SVID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.svid.Load(); now != nil && now.Received.After(svid.Received) {
		svid = now
	}
	if c.latestRoots != nil {
		if with, err := svid.WithRoots(c.latestRoots); err == nil {
			svid = with
		} else {
			c.cfg.Log.Warn("the node's certificate leads to none of the mesh's roots", "expires", svid.Leaf().NotAfter,
				"error", err)
		}
	}
	c.svid.Store(svid)
	c.unsaved.Store(true)
	c.save(svid)
}

// save writes the identity to its file. If that fails it logs so once; the identity is used all the same, and saveAgain
// retries.
func (c *Client) save(svid *identity.SVID) {
	err := identity.Save(c.cfg.IdentityFile, svid)
	c.unsaved.Store(err != nil)
	if failed := err != nil; c.unsavable.Swap(failed) == failed {
		return
	}
	if err != nil {
		c.cfg.Log.Error("node identity in use but not saved, trying again: an agent started now would use the previous one", "error", err)
		return
	}
	c.cfg.Log.Info("node identity saved")
}

// saveAgain retries a failed save.
func (c *Client) saveAgain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unsaved.Load() {
		c.save(c.svid.Load())
	}
}

// report returns the agent's report with the roots that it verifies the control plane by.
func (c *Client) report() agentapi.Report {
	r := c.cfg.Report()
	if svid := c.svid.Load(); svid != nil {
		for _, root := range svid.Roots {
			r.Roots = append(r.Roots, spiffe.Fingerprint(root))
		}
		slices.Sort(r.Roots)
	}
	return r
}
