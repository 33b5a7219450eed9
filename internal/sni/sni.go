// Package sni defines the TLS server names by which meshes call each other's gateways. A gateway accepts no others.
package sni

import "strings"

// MaxLen is the maximum length of a server name (RFC 1035 §2.3.4, RFC 6066 §3).
const MaxLen = 253

// Export names an exported service: "<alias>.<namespace>.<consumer>.fed.<exporter's trust domain>". consumer is the
// exporter's name for the consuming mesh.
func Export(alias, namespace, consumer, exporterDomain string) string {
	return strings.Join([]string{alias, namespace, consumer, "fed", exporterDomain}, ".")
}

// Control names the exporter's control plane, for the consumer's control plane.
func Control(consumer, exporterDomain string) string {
	return strings.Join([]string{"control", consumer, "fed", exporterDomain}, ".")
}

// Invite names an open invitation at the inviter's gateway, for the accepting mesh.
func Invite(id, inviterDomain string) string {
	return strings.Join([]string{id, "invite", "fed", inviterDomain}, ".")
}

// Probe lets a consumer's gateway test the path to the exporter's control plane.
func Probe(consumer, exporterDomain string) string {
	return strings.Join([]string{"probe", consumer, "fed", exporterDomain}, ".")
}

// ControlOf returns the consumer in a name made by Control.
func ControlOf(name, exporterDomain string) (consumer string, ok bool) {
	name, ok = strings.CutSuffix(name, ".fed."+exporterDomain)
	consumer, is := strings.CutPrefix(name, "control.")
	return consumer, ok && is && consumer != "" && !strings.Contains(consumer, ".")
}

// InviteOf returns the id in a name made by Invite.
func InviteOf(name, inviterDomain string) (id string, ok bool) {
	id, ok = strings.CutSuffix(name, ".invite.fed."+inviterDomain)
	return id, ok && id != "" && !strings.Contains(id, ".")
}
