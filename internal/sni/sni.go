// Package sni names what one mesh asks of another in a TLS handshake. A gateway answers to these names and no others.
package sni

import "strings"

// MaxLen is how long such a name may be: that of a host name (RFC 1035 §2.3.4, RFC 6066 §3).
const MaxLen = 253

// Export is what a consumer asks for: "<alias>.<namespace>.<consumer>.fed.<exporter's trust domain>".
// Consumer is the name by which the exporter knows the consumer.
func Export(alias, namespace, consumer, exporterDomain string) string {
	return strings.Join([]string{alias, namespace, consumer, "fed", exporterDomain}, ".")
}

// Control is what a consumer's control plane asks of the exporter's.
func Control(consumer, exporterDomain string) string {
	return strings.Join([]string{"control", consumer, "fed", exporterDomain}, ".")
}

// Invite is what an accepting mesh asks of the inviter's gateway.
func Invite(id, inviterDomain string) string {
	return strings.Join([]string{id, "invite", "fed", inviterDomain}, ".")
}

// Probe is what a consumer's gateway asks of the exporter's to know whether the way to its control plane is open.
func Probe(consumer, exporterDomain string) string {
	return strings.Join([]string{"probe", consumer, "fed", exporterDomain}, ".")
}

// ControlOf is the consumer in a name that Control made for the exporter.
func ControlOf(name, exporterDomain string) (consumer string, ok bool) {
	name, ok = strings.CutSuffix(name, ".fed."+exporterDomain)
	consumer, is := strings.CutPrefix(name, "control.")
	return consumer, ok && is && consumer != "" && !strings.Contains(consumer, ".")
}

// InviteOf is the id in a name that Invite made for the inviter.
func InviteOf(name, inviterDomain string) (id string, ok bool) {
	id, ok = strings.CutSuffix(name, ".invite.fed."+inviterDomain)
	return id, ok && id != "" && !strings.Contains(id, ".")
}
