package federation

// HeaderPeer holds the name of the MeshPeer whose gateway sent a probe, as set by our gateway. Only probes rely on it.
const HeaderPeer = "isthmus-peer"

// headerCalls tells a peer, with each bundle, whether its calls are admitted.
const (
	headerCalls  = "isthmus-calls"
	callsRefused = "refused"
)

// headerReadiness tells a peer, with each bundle, the number of its newest readiness report that we have.
const headerReadiness = "isthmus-readiness"

// ControlSNI returns the server name at our gateway that leads to a peer's control plane.
func ControlSNI(peer string) string { return "control." + peer }

// ProbeSNI returns the server name and HTTP host at our gateway with which it probes a peer.
func ProbeSNI(peer string) string { return "probe." + peer }

// HomeSNI is the server name at our gateway that leads back to this control plane.
const HomeSNI = "home"

// BootstrapSNI returns the server name at our gateway that leads to an inviter's gateway.
func BootstrapSNI(id string) string { return "bootstrap." + id }

// isLabel reports whether s is a DNS label (RFC 1123), like the names of peers, services and namespaces.
func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

const idBytes = 16

// isInviteID reports whether s has the form of our IDs: 32 lower-case hex digits.
func isInviteID(s string) bool { return len(s) == 2*idBytes && isHex(s) }

func isFingerprint(s string) bool { return len(s) == 64 && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'f') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
