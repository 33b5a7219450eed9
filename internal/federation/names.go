package federation

// Headers that a gateway sets, per filter chain, on what it forwards to the peering server.
const (
	HeaderPeer   = "isthmus-peer"   // name of the MeshPeer whose gateway spoke
	HeaderInvite = "isthmus-invite" // id of the open invitation whose name was asked for
)

// ControlSNI is the name at the own gateway under which a peer's control plane is reached: in the handshake and as HTTP host.
func ControlSNI(peer string) string { return "control." + peer }

// BootstrapSNI is the name at the own gateway that leads to an inviter's gateway.
func BootstrapSNI(id string) string { return "bootstrap." + id }

// isLabel says whether s is a DNS label (RFC 1123), as names of peers, services and namespaces are.
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

// isInviteID says whether s is an id of ours: 32 lower-case hex digits.
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
