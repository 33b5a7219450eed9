// Package statetest tests the contract of the control plane's state on any database.
package statetest

import (
	"crypto/sha256"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// Run tests the contract. open returns an empty database for each test.
func Run(t *testing.T, open func(t *testing.T) state.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, state.Store)
	}{
		{"blobs", blobs},
		{"token is used once", tokenOnce},
		{"token refusals", tokenRefusals},
		{"of a hundred racing uses one wins", tokenRace},
		{"what ended stays ended", tokenEnded},
		{"invites", invites},
		{"of a hundred racing acceptances one wins", inviteRace},
		{"bootstraps", bootstraps},
		{"nodes", nodes},
		{"registry", registry},
		{"names and addresses", namesAndAddresses},
		{"conversations", conversations},
		{"stolenConversation", stolenConversation},
		{"revoked node", revokedNode},
		{"vips", vips},
		{"peers", peers},
		{"peer roots", peerRoots},
		{"what peers say", whatPeersSay},
		{"revoked peer", revokedPeer},
		{"sequences", sequences},
		{"certs", certs},
		{"certs of generations", certsOfGenerations},
		{"certs written together", certsTogether},
		{"cancelled token", cancelledToken},
		{"revoked while it joins", revokedWhileJoining},
		{"admins", admins},
		{"certs under a root", certsUnder},
		{"rotation", rotation},
		{"under the root that signs", underTheSigningRoot},
		{"leases", leases},
		{"quarantines", quarantines},
		{"events", events},
		{"event with an end", eventWithEnd},
		{"events are kept", eventsAreKept},
		{"events are bounded", eventsAreBounded},
		{"events outlive a clock", eventsOutliveAClock},
		{"refusals are folded", refusalsAreFolded},
		{"refusals leave room", refusalsLeaveRoom},
		{"ages of configuration", configAges},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// epoch is the current time of all tests.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return epoch.Add(d) }

func hash(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }
