package accesslog

import (
	"maps"
	"sync"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/wellknown"
)

// remembered bounds the connections that are known to have been counted.
const remembered = 8192

// maxPeers bounds the names that are counted apart; the control plane configures them, so this is never reached.
const maxPeers = 1024

// tally counts per peer.
type tally struct {
	mu       sync.Mutex // guards what follows
	peers    map[string]agentapi.PeerCounts
	refused  map[refusal]uint64
	seen     map[string]bool // connections that were counted
	previous map[string]bool // the same, one generation before
}

// refusal is one kind of refused call.
type refusal struct{ Log, Verdict, Class string }

func newTally() *tally {
	return &tally{
		peers: map[string]agentapi.PeerCounts{}, refused: map[refusal]uint64{},
		seen: map[string]bool{}, previous: map[string]bool{},
	}
}

// add counts one entry. It returns false for an entry of a connection that was counted already.
func (t *tally) add(e *Entry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	repeated := !e.http && !t.first(e.Log+"/stream/"+e.stream, e.stream)
	if repeated {
		return false
	}
	if e.Refused() {
		t.refused[refusal{e.Log, e.Verdict, e.Class}]++
	}
	if e.Peer == "" || e.Log != wellknown.LogIngress && e.Log != wellknown.LogEgress {
		return true
	}
	if _, known := t.peers[e.Peer]; !known && len(t.peers) >= maxPeers {
		return true
	}
	c := t.peers[e.Peer]
	t.count(&c, e)
	t.peers[e.Peer] = c
	return true
}

func (t *tally) count(c *agentapi.PeerCounts, e *Entry) {
	if e.handshakeFailure {
		c.HandshakesFailed++
		return
	}
	// A connection is identified by its client's address. Its requests and its own entry, whichever comes first, count
	// it once.
	if e.connection != "" && t.first(e.Log+"/connection/"+e.connection, e.connection) {
		c.HandshakesOK++
	}
	switch {
	case e.Refused() && e.Verdict != verdictFailed:
		c.Denials++
	case e.http || e.reachedUpstream:
		c.Requests++
	}
	if e.http || e.reachedUpstream {
		c.BytesIn += e.BytesIn
		c.BytesOut += e.BytesOut
	}
}

// first time that key is met; always for entries without one.
func (t *tally) first(key, id string) bool {
	if id == "" {
		return true
	}
	if t.seen[key] || t.previous[key] {
		return false
	}
	if len(t.seen) >= remembered {
		t.previous, t.seen = t.seen, map[string]bool{}
	}
	t.seen[key] = true
	return true
}

func (t *tally) byPeer() map[string]agentapi.PeerCounts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.peers)
}

func (t *tally) refusals() map[refusal]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.refused)
}
