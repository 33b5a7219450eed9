package federation

// HeaderPeer is the name of the MeshPeer whose gateway sent a probe, as our gateway says. Only probes rely on it.
const HeaderPeer = "isthmus-peer"

// headerCalls tells a peer, with each bundle, whether its calls are let through.
const (
	headerCalls  = "isthmus-calls"
	callsRefused = "refused"
)

// headerReadiness tells a peer, with each bundle, the number of its newest readiness report that is held here.
const headerReadiness = "isthmus-readiness"

// ControlSNI returns the name at the own gateway that leads to a peer's control plane.
func ControlSNI(peer string) string { return "control." + peer }

// ProbeSNI returns the name at the own gateway under which it probes a peer: in the handshake and as HTTP host.
func ProbeSNI(peer string) string { return "probe." + peer }

// HomeSNI is the name at the own gateway that leads back to this control plane.
const HomeSNI = "home"

// BootstrapSNI returns the name at the own gateway that leads to an inviter's gateway.
func BootstrapSNI(id string) string { return "bootstrap." + id }

// isLabel reports whether s is a DNS label (RFC 1123), as names of peers, services and namespaces are.
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

// isInviteID reports whether s is an id of ours: 32 lower-case hex digits.
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
