package control

import (
	"crypto/x509"
	"slices"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/spiffe"
)

// SetRoots says which roots the mesh has now: by them the control plane is known from the next connection on. From then
// on those that come with the node's certificate do not count: they may be of a moment before.
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

// SignedBy says under which root certificates are issued now. A node certificate under another is replaced soon.
func (c *Client) SignedBy(root string) { c.signing.Set(root, c.cfg.Now()) }

// setCertificate takes up a certificate, beside the newest roots, unless a newer one has come.
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

// save writes the identity down, or says once that it cannot: then it is in use all the same, and tried again while the
// certificate rests.
func (c *Client) save(svid *identity.SVID) {
	err := identity.Save(c.cfg.IdentityFile, svid)
	c.unsaved.Store(err != nil)
	if failed := err != nil; c.unsavable.Swap(failed) == failed {
		return
	}
	if err != nil {
		c.cfg.Log.Error("node identity in use but not written, tried again: an agent that starts now has the one before", "error", err)
		return
	}
	c.cfg.Log.Info("node identity written")
}

// saveAgain writes down what could not be written before.
func (c *Client) saveAgain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unsaved.Load() {
		c.save(c.svid.Load())
	}
}

// report is what the agent says, and which roots it knows the control plane by.
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
