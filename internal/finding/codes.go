package finding

// Code describes one code of a finding.
type Code struct {
	Code     string
	Severity Severity // the worst that it has
	Catches  string
}

// Codes are all codes, in order. They are stable: a code keeps its meaning for ever, and one that is no longer used is
// not given away again. Codes that begin with ISM-SCH are of one document, those with ISM-SRC of the folder.
var Codes = []Code{
	{"ISM-SCH01", Error, "a value that the kind does not allow"},
	{"ISM-SCH02", Warning, "legal, but surely not what was meant"},
	{"ISM-SCH10", Error, "not YAML, or YAML beyond plain mappings, lists and scalars"},
	{"ISM-SCH11", Error, "bytes that are not UTF-8 text"},
	{"ISM-SCH12", Error, "larger or deeper than any real configuration"},
	{"ISM-SCH13", Error, "one key twice in a mapping"},
	{"ISM-SCH14", Error, "apiVersion or kind missing or not known"},
	{"ISM-SCH15", Error, "a name, namespace or label that cannot be"},
	{"ISM-SCH16", Error, "a field that the kind does not have"},
	{"ISM-SCH17", Error, "a value of the wrong type"},
	{"ISM-SCH18", Error, "a value that is not in the field's list"},
	{"ISM-SCH19", Error, "a field that must be written"},
	{"ISM-SCH20", Error, "a field, value or security kind that Isthmus cannot enforce yet, so it refuses it"},
	{"ISM-SCH21", Error, "one object written twice in a file, so that neither counts"},

	{"ISM-SRC01", Warning, "an object that cannot be read and stays as it last was"},
	{"ISM-SRC02", Error, "a file or folder that cannot be read"},
	{"ISM-SRC03", Error, "every file gone at once; the last good state stays"},
	{"ISM-SRC04", Error, "one object written in two files; the one in effect stays"},
	{"ISM-SRC05", Error, "more than one Mesh; the one in effect stays"},

	{"ISM0001", Error, "no Mesh, so that nothing is served"},
	{"ISM0002", Error, "a Mesh whose trust domain is none"},
	{"ISM0003", Warning, "a MeshPeer in a file beside a peering by token of its name; the file is used"},
	{"ISM0004", Error, "the Mesh is gone; the last one stays"},
	{"ISM0005", Error, "another trust domain for a running mesh; the last Mesh stays"},

	{"ISM0010", Error, "a WorkloadEntry whose address is none"},
	{"ISM0011", Error, "a workload of whose namespace and service account no identity can be made"},
	{"ISM0012", Error, "one workload registered by two nodes; the first keeps its name"},
	{"ISM0013", Error, "a workload whose service account its node may not host"},
	{"ISM0014", Error, "a workload registered twice by one node, or in a way that none can be"},

	{"ISM0020", Error, "a ServiceEntry with a resolution that is not carried out yet"},
	{"ISM0021", Error, "a host with a wildcard, which is not carried out yet"},
	{"ISM0022", Error, "a host that is served already; the older one stays"},
	{"ISM0023", Error, "an address of a ServiceEntry that is none"},
	{"ISM0024", Error, "a host that cannot be, or that another namespace's Service may be called by"},
	{"ISM0025", Error, "an address and port that another host has; the older one stays"},

	{"ISM0030", Warning, "a PeerAuthentication with a selector in the root namespace, which has no effect"},
	{"ISM0031", Error, "a second PeerAuthentication for one scope; the older one counts"},
	{"ISM0032", Error, "one port of a workload with two protocols"},

	{"ISM0033", Warning, "a policy in istio-system where that is not the root namespace; it means istio-system alone"},

	{"ISM0040", Error, "an AuthorizationPolicy with an action that is not carried out yet; what it selects is closed"},
	{"ISM0041", Error, "an AuthorizationPolicy with targetRefs, which are not carried out yet; its namespace is closed"},
	{"ISM0042", Error, "a condition of a policy that cannot be enforced: an ALLOW allows nothing, a DENY denies all"},

	{"ISM0050", Error, "a peer with which nothing passes; a warning where that may be meant or passes by itself"},
	{"ISM0051", Error, "a gateway of a peer whose ID lies outside the peer's trust domain"},
	{"ISM0052", Error, "a name between meshes that is too long for a TLS handshake"},

	{"ISM0060", Error, "an export of a Service that does not exist"},
	{"ISM0061", Error, "an export of a port that the Service does not have"},
	{"ISM0062", Warning, "an export to a peer that does not exist"},
	{"ISM0063", Warning, "an HTTP export without rules, which passes nothing"},
	{"ISM0064", Error, "rules for a port on which they cannot be enforced"},
	{"ISM0065", Error, "a second export of one name to one peer; the older one stands"},
	{"ISM0066", Error, "a caller of an export outside the peer's trust domain"},

	{"ISM0070", Warning, "an import without callers, which nobody may call"},
	{"ISM0071", Error, "a caller of an import that names no identity"},
	{"ISM0072", Warning, "an import from a peer that does not exist"},
	{"ISM0073", Warning, "an import over a Service of its name, of which it says nothing"},
	{"ISM0074", Error, "an import with local endpoints of a Service or port that does not exist"},
	{"ISM0075", Error, "an import with local endpoints of another protocol"},
	{"ISM0076", Error, "an import whose host is served already"},

	{"ISM0201", Error, "an object that is not in force, for the sake of which something is closed"},
	{"ISM0202", Error, "an object at which Isthmus itself fails; what it selects is closed if it is of a security kind"},
	{"ISM0203", Info, "documents that are no matter of Isthmus's, such as Deployments; they are skipped"},
	{"ISM0204", Warning, "an Istio kind that is not carried out yet; the object is skipped"},
	{"ISM0205", Error, "a configuration on which Isthmus itself fails; what was in force stays"},
	{"ISM0206", Error, "a proxy whose configuration Isthmus itself fails to build; it keeps what it has"},
	{"ISM0207", Error, "more objects that are not in force than are named"},
	{"ISM0208", Error, "more hosts and ports than workloads and proxies can be told of"},
	{"ISM0209", Error, "more hosts and ports than one namespace may serve; the oldest stand"},
	{"ISM0210", Error, "an address, host or port that nobody may name"},
	{"ISM0215", Error, "more hosts and ports than the mesh may serve; the oldest stand"},
	{
		"ISM0216", Error,
		"policies of one workload that compare with more values than its proxy is told of; the oldest stand",
	},

	{"ISM0230", Error, "an object that an Envoy cannot live with; what it selects is closed there"},
	{"ISM0231", Error, "an Envoy that cannot live with its configuration, where no object can be named"},

	{"ISM0240", Error, "a workload whose name its node was not granted"},
	{"ISM0241", Error, "a workload whose address its node was not granted"},
	{"ISM0242", Error, "labels of a workload that were not granted; they are ignored"},
	{"ISM0243", Error, "more workloads than a node may host"},
	{"ISM0244", Error, "an address that another workload has; the first keeps it"},
	{"ISM0245", Error, "a workload that contradicts its WorkloadEntry"},

	{
		"ISM0270", Error,
		"a MeshPeer in a file that means another mesh than the peering by token of its name; the file is ignored",
	},

	{"ISM0280", Error, "a workload that its node cannot serve"},
	{"ISM0281", Info, "a workload whose network namespace is not there"},

	{"ISM0290", Error, "more names in a namespace than have virtual addresses"},

	{"ISM0300", Warning, "a node of which nothing is heard; others are called in the place of what it serves"},
	{"ISM0301", Warning, "a service without a ready endpoint"},
	{"ISM0302", Warning, "a targetPort that none of the workloads behind it has"},
	{"ISM0305", Warning, "a path of a policy or an export that no request can have"},
	{"ISM0306", Warning, "a method in lower case where it matches nothing that programs send"},
	{"ISM0325", Warning, "an import of a service that its peer does not offer"},
	{"ISM0326", Error, "an import of a service that its peer offers in another protocol"},
	{"ISM0327", Warning, "a caller of an import that no workload of the mesh is"},
	{"ISM0328", Warning, "an export of a workload whose policies refuse every call of the peer"},
	{"ISM0329", Error, "an export of what is imported"},
	{"ISM0330", Warning, "an export of a service without a ready endpoint"},
	{"ISM0331", Warning, "a rule of an export that no request can meet"},
	{"ISM0332", Warning, "a peer's caller in a policy on raw TCP, where it is not known"},
	{"ISM0333", Warning, "an import that nobody can serve now"},
	{"ISM0334", Warning, "a peer that does not exist, beside one that was most likely meant"},

	{"ISM0340", Warning, "connections of a workload that were open before its capture and go on outside the mesh"},
	{"ISM0341", Info, "ports of a workload that its node excludes from capture"},
	{"ISM0342", Info, "callers in plaintext of a workload that takes it, whom STRICT would refuse"},
	{"ISM0345", Warning, "a policy or a Service that selects no workload"},
	{"ISM0346", Warning, "a caller in a policy that no workload of the mesh is"},
	{"ISM0347", Warning, "a principal that is written so that it matches nobody"},
	{"ISM0348", Warning, "a port in a policy at which no workload that it selects listens"},
}
