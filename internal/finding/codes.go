package finding

// Row is a code's entry in the registry.
type Row struct {
	Code     Code
	Severity Severity
	Title    string // what it detects
	Remedy   string // what to do next, unless the check has better advice
	Page     string // the kind's page in docs/kinds, if it concerns one kind
	// NotInForce means that something written has no effect, or not the intended one.
	NotInForce bool
	Aliases    []string // the names of the same check in Istio (IST…) and Kiali (KIA…)
}

// Registry lists all codes in order. Retired codes are not reused. ISM-SCH codes concern a single document, ISM-SRC
// codes the configuration folder.
var Registry = []Row{
	{
		Code: "ISM-SCH01", Severity: Error, Aliases: []string{"IST0106"},
		Title:  "a value that the kind does not allow",
		Remedy: "write a value that the kind's page in docs/kinds allows",
	},
	{
		Code: "ISM-SCH02", Severity: Warning, Aliases: []string{"IST0133"},
		Title:  "legal, but surely not what was meant",
		Remedy: "write what is meant, or remove it",
	},
	{
		Code: "ISM-SCH10", Severity: Error, Aliases: []string{"IST0106"},
		Title:  "not YAML, or YAML beyond plain mappings, lists and scalars",
		Remedy: "correct the YAML: check indentation, colons and quotes on this line and the one before",
	},
	{
		Code: "ISM-SCH11", Severity: Error, Aliases: []string{"IST0106"},
		Title:  "bytes that are not UTF-8 text",
		Remedy: "save the file as UTF-8",
	},
	{
		Code: "ISM-SCH12", Severity: Error, Aliases: []string{"IST0106"},
		Title:  "larger or deeper than any real configuration",
		Remedy: "split it into several",
	},
	{
		Code: "ISM-SCH13", Severity: Error, Aliases: []string{"IST0106"},
		Title:  "one key twice in a mapping",
		Remedy: "keep one of the two",
	},
	{
		Code: "ISM-SCH14", Severity: Error, Aliases: []string{"IST0106"},
		Title: "apiVersion or kind missing or unknown",
		Remedy: "begin every document with apiVersion and kind, for example: apiVersion: isthmus.dev/v1alpha1, " +
			"kind: FederatedExport",
	},
	{
		Code: "ISM-SCH15", Severity: Error, Aliases: []string{"IST0106"},
		Title:  "a name, namespace or label that is not valid",
		Remedy: "use lower-case letters, digits and hyphens, beginning and ending with a letter or digit",
	},
	{
		Code: "ISM-SCH16", Severity: Error, Aliases: []string{"IST0106"},
		Title:  "a field that the kind does not have",
		Remedy: "remove it, or correct its name",
	},
	{
		Code: "ISM-SCH17", Severity: Error, Aliases: []string{"IST0106"},
		Title:  "a value of the wrong type",
		Remedy: "compare with the kind's page in docs/kinds",
	},
	{
		Code: "ISM-SCH18", Severity: Error, Aliases: []string{"IST0106"},
		Title:  "a value that is not in the field's list",
		Remedy: "use one of the values on the kind's page in docs/kinds",
	},
	{
		Code: "ISM-SCH19", Severity: Error, Aliases: []string{"IST0106"},
		Title:  "a field that must be written",
		Remedy: "write it",
	},
	{
		Code: "ISM-SCH20", Severity: Error,
		Title:  "a field, value or security kind that Isthmus cannot enforce yet, so it refuses it",
		Remedy: "remove it to do without it",
	},
	{
		Code: "ISM-SCH21", Severity: Error,
		Title:  "one object written twice in a file, so that neither counts",
		Remedy: "keep one of them, or give one another name",
	},

	{
		Code: "ISM-SRC01", Severity: Warning,
		Title:  "an object that cannot be read and stays as it last was",
		Remedy: "correct the errors of this file",
	},
	{
		Code: "ISM-SRC02", Severity: Error,
		Title:  "a file or folder that cannot be read",
		Remedy: "make it readable for the user that runs Isthmus, or remove it",
	},
	{
		Code: "ISM-SRC03", Severity: Error,
		Title:  "every file gone at once; the last good state stays",
		Remedy: "bring the files back; to really have no configuration, leave one file that holds only a comment",
	},
	{
		Code: "ISM-SRC04", Severity: Error,
		Title:  "one object written in two files; the one in effect stays",
		Remedy: "remove one of the two",
	},
	{
		Code: "ISM-SRC05", Severity: Error, Page: "mesh",
		Title:  "more than one Mesh; the one in effect stays",
		Remedy: "keep exactly one Mesh",
	},

	{
		Code: "ISM0001", Severity: Error, Page: "mesh",
		Title:  "no Mesh, so that nothing is served",
		Remedy: "write a Mesh (docs/kinds/mesh.md) into the configuration folder",
	},
	{
		Code: "ISM0002", Severity: Error, Page: "mesh",
		Title:  "a Mesh whose trust domain is not valid",
		Remedy: "use lower-case letters, digits, dots, dashes and underscores",
	},
	{
		Code: "ISM0003", Severity: Warning, Page: "meshpeer",
		Title:  "a MeshPeer in a file beside a peering by token of its name; the file is used",
		Remedy: "remove the file, or revoke the peering: isthmus peer revoke",
	},
	{
		Code: "ISM0004", Severity: Error, Page: "mesh",
		Title:  "the Mesh is gone; the last one stays",
		Remedy: "write it again (docs/kinds/mesh.md)",
	},
	{
		Code: "ISM0005", Severity: Error, Page: "mesh",
		Title:  "another trust domain for a running mesh; the last Mesh stays",
		Remedy: "write the former trust domain, or begin a new mesh with its own state file",
	},

	{
		Code: "ISM0011", Severity: Error,
		Title:  "a workload of whose namespace and service account no identity can be made",
		Remedy: "correct the workload in its node's settings",
	},
	{
		Code: "ISM0012", Severity: Error,
		Title:  "one workload registered by two nodes; the first keeps its name",
		Remedy: "rename one of them in its node's settings",
	},
	{
		Code: "ISM0013", Severity: Error,
		Title:  "a workload whose service account its node may not host",
		Remedy: "correct serviceAccount, or start the node with a token that grants it",
	},
	{
		Code: "ISM0014", Severity: Error,
		Title:  "a workload registered twice by one node, or in a way that is not valid",
		Remedy: "correct the node's settings",
	},

	{
		Code: "ISM0022", Severity: Error, Page: "serviceentry", Aliases: []string{"KIA1211", "IST0177"},
		Title:  "a host that is served already; the older one stays",
		Remedy: "remove one of them",
	},
	{
		Code: "ISM0024", Severity: Error, Page: "serviceentry",
		Title:  "a host that is not valid, or that another namespace's Service may be called by",
		Remedy: "use a host of your own",
	},
	{
		Code: "ISM0025", Severity: Error, Page: "serviceentry",
		Title:  "an address and port that another host has; the older one stays",
		Remedy: "give each its own address or port, or limit who sees them with exportTo",
	},

	{
		Code: "ISM0030", Severity: Warning, Page: "peerauthentication",
		Title:  "a PeerAuthentication with a selector in the root namespace, which has no effect",
		Remedy: "move it to the workload's namespace",
	},
	{
		Code: "ISM0031", Severity: Error, Page: "peerauthentication", Aliases: []string{"KIA0002", "KIA0003"},
		Title:  "a second PeerAuthentication for one scope; the older one counts",
		Remedy: "remove one of them",
	},
	{
		Code: "ISM0032", Severity: Error, Page: "service", Aliases: []string{"IST0116"},
		Title:  "one port of a workload with two protocols",
		Remedy: "give the port the same protocol (name or appProtocol) in each Service that selects the workload",
	},
	{
		Code: "ISM0033", Severity: Warning,
		Title:  "a policy or Sidecar in istio-system where that is not the root namespace; it means istio-system alone",
		Remedy: "move it to the root namespace, or write rootNamespace: istio-system into the Mesh",
	},
	{
		Code: "ISM0034", Severity: Error, Page: "sidecar", Aliases: []string{"KIA0002", "IST0111"},
		Title:  "a second Sidecar of one namespace; the older one counts",
		Remedy: "write all hosts into one of them, and remove the other",
	},

	{
		Code: "ISM0042", Severity: Error, NotInForce: true, Page: "authorizationpolicy",
		Title:  "a policy with something in it that cannot be enforced; what it selects is closed",
		Remedy: "see docs/kinds/authorizationpolicy.md for what can be enforced",
	},

	{
		Code: "ISM0050", Severity: Error, Page: "meshpeer",
		Title:  "a peer with which nothing can pass",
		Remedy: "isthmus peer status",
	},
	{
		Code: "ISM0051", Severity: Error, Page: "meshpeer",
		Title:  "a gateway of a peer whose ID lies outside the peer's trust domain",
		Remedy: "write the gateway's exact ID, as the peer's 'isthmus peer manifest' prints it",
	},
	{
		Code: "ISM0052", Severity: Error,
		Title:  "a name between meshes that is too long for a TLS handshake",
		Remedy: "choose shorter names or a shorter trust domain",
	},
	{
		Code: "ISM0053", Severity: Warning, Page: "meshpeer",
		Title:  "a peer with which nothing passes now, which may be meant or pass by itself",
		Remedy: "isthmus peer status",
	},

	{
		Code: "ISM0060", Severity: Error, Page: "federatedexport",
		Title:  "an export of a Service that does not exist",
		Remedy: "write the Service, or correct the name",
	},
	{
		Code: "ISM0061", Severity: Error, Page: "federatedexport",
		Title:  "an export of a port that the Service does not have",
		Remedy: "write one of the Service's port numbers",
	},
	{
		Code: "ISM0062", Severity: Warning, Page: "federatedexport",
		Title:  "an export to a peer that does not exist",
		Remedy: "isthmus peer invite",
	},
	{
		Code: "ISM0063", Severity: Warning, Page: "federatedexport",
		Title:  "an HTTP export without rules, which passes nothing",
		Remedy: "add a rule; 'rules: [{}]' passes every request of the peer",
	},
	{
		Code: "ISM0064", Severity: Error, Page: "federatedexport",
		Title:  "rules for a port on which they cannot be enforced",
		Remedy: "remove the rules (the whole peer may then connect), or name the Service's port http-…",
	},
	{
		Code: "ISM0065", Severity: Error, Page: "federatedexport",
		Title:  "a second export of one name to one peer; the older one stands",
		Remedy: "choose another alias",
	},
	{
		Code: "ISM0066", Severity: Error, Page: "federatedexport",
		Title:  "a caller of an export outside the peer's trust domain",
		Remedy: "write a SPIFFE ID of the peer's trust domain",
	},

	{
		Code: "ISM0070", Severity: Warning, Page: "federatedimport",
		Title:  "an import without callers, which nobody may call",
		Remedy: "list the service accounts that may call",
	},
	{
		Code: "ISM0071", Severity: Error, Page: "federatedimport",
		Title:  "a caller of an import that names no identity",
		Remedy: "write <service account> or <namespace>/<service account>",
	},
	{
		Code: "ISM0072", Severity: Warning, Page: "federatedimport",
		Title:  "an import from a peer that does not exist",
		Remedy: "isthmus peer accept, with the invitation of that mesh",
	},
	{
		Code: "ISM0073", Severity: Warning, Page: "federatedimport",
		Title:  "an import over a Service of its name, of which it says nothing",
		Remedy: "add 'local: {}' to use both, or remove the Service",
	},
	{
		Code: "ISM0074", Severity: Error, Page: "federatedimport",
		Title:  "an import with local endpoints of a Service or port that does not exist",
		Remedy: "write the Service, or remove 'local'",
	},
	{
		Code: "ISM0075", Severity: Error, Page: "federatedimport",
		Title:  "an import with local endpoints of another protocol",
		Remedy: "make them equal",
	},
	{
		Code: "ISM0076", Severity: Error, Page: "federatedimport",
		Title:  "an import whose host is served already",
		Remedy: "remove one of them",
	},

	{
		Code: "ISM0201", Severity: Error, NotInForce: true,
		Title:  "an object that is not in force, for the sake of which something is closed",
		Remedy: "correct it, or remove it to do without it",
	},
	{
		Code: "ISM0202", Severity: Error, NotInForce: true,
		Title:  "an object at which Isthmus itself fails; what it selects is closed if it is of a security kind",
		Remedy: "this is a fault of Isthmus: report it with the object, and write the object otherwise meanwhile",
	},
	{
		Code: "ISM0203", Severity: Info,
		Title:  "documents that do not concern Isthmus, such as Deployments; they are skipped",
		Remedy: "nothing needs to be done",
	},
	{
		Code: "ISM0204", Severity: Warning,
		Title:  "an Istio kind that is not carried out yet; the object is skipped",
		Remedy: "do not rely on it: only the kinds in docs/kinds take effect",
	},
	{
		Code: "ISM0205", Severity: Error, NotInForce: true,
		Title:  "a configuration on which Isthmus itself fails; what was in force stays",
		Remedy: "this is a fault of Isthmus: report it with the log, and take back the last change meanwhile",
	},
	{
		Code: "ISM0206", Severity: Error, NotInForce: true,
		Title:  "a proxy whose configuration Isthmus itself fails to build; it keeps what it has",
		Remedy: "this is a fault of Isthmus: report it with the log, and take back the last change meanwhile",
	},
	{
		Code: "ISM0207", Severity: Error,
		Title:  "more objects that are not in force than are named",
		Remedy: "correct those that are named first",
	},
	{
		Code: "ISM0208", Severity: Error,
		Title:  "more hosts and ports than workloads and proxies can be told of",
		Remedy: "limit who sees a ServiceEntry with exportTo, and whom policies allow, or serve fewer",
	},
	{
		Code: "ISM0209", Severity: Error,
		Title:  "more hosts and ports than one namespace may serve; the oldest stand",
		Remedy: "serve fewer, or remove what nobody calls",
	},
	{
		Code: "ISM0210", Severity: Error,
		Title:  "an address, host or port that is reserved",
		Remedy: "write the address and port at which other hosts reach it",
	},
	{
		Code: "ISM0215", Severity: Error,
		Title:  "more hosts and ports than the mesh may serve; the oldest stand",
		Remedy: "serve fewer, or remove what nobody calls",
	},
	{
		Code: "ISM0216", Severity: Error, Page: "authorizationpolicy",
		Title: "policies of one workload that compare with more values than its proxy is told of; the oldest " +
			"stand",
		Remedy: "write fewer values, for example namespaces in place of principals, or narrow the policies' " +
			"selectors",
	},

	{
		Code: "ISM0230", Severity: Error,
		Title:  "an object that an Envoy cannot run with; what it selects is closed there",
		Remedy: "change the object, or remove it: it is tried again when it says something else",
	},
	{
		Code: "ISM0231", Severity: Error,
		Title: "an Envoy that cannot run with its configuration, where no object can be named",
		Remedy: "look at Envoy's log on that host (envoy.log in the agent's runDir), and undo what was changed " +
			"last",
	},

	{
		Code: "ISM0240", Severity: Error,
		Title:  "a workload whose name its node was not granted",
		Remedy: "give it a name that was granted, or start the node with a token that grants it",
	},
	{
		Code: "ISM0241", Severity: Error,
		Title:  "a workload whose address its node was not granted",
		Remedy: "correct the address, or start the node with a token that grants it",
	},
	{
		Code: "ISM0242", Severity: Error,
		Title:  "labels of a workload that were not granted; they are ignored",
		Remedy: "take them out of the node's settings, or start the node with a token that grants them",
	},
	{
		Code: "ISM0243", Severity: Error,
		Title:  "more workloads than a node may host",
		Remedy: "host it on another node, or give it a service account of its own",
	},
	{
		Code: "ISM0244", Severity: Error,
		Title:  "an address that another workload has; the first keeps it",
		Remedy: "give each workload an address of its own",
	},
	{
		Code: "ISM0245", Severity: Error, Page: "workloadentry",
		Title:  "a workload that contradicts its WorkloadEntry",
		Remedy: "make the two say the same",
	},

	{
		Code: "ISM0270", Severity: Error, Page: "meshpeer",
		Title: "a MeshPeer in a file that means another mesh than the peering by token of its name; the file is " +
			"ignored",
		Remedy: "choose another name, or revoke the peering first: isthmus peer revoke",
	},

	{
		Code: "ISM0280", Severity: Error,
		Title: "a workload that its node cannot serve",
		Remedy: "fix that on the node's host; the node tries again by itself, and serves its other workloads " +
			"meanwhile",
	},
	{
		Code: "ISM0281", Severity: Info,
		Title:  "a workload whose network namespace is not there",
		Remedy: "start the workload; the node notices by itself",
	},

	{
		Code: "ISM0290", Severity: Error,
		Title: "more names in a namespace than have virtual addresses",
		Remedy: "remove Services, ServiceEntry hosts and FederatedImports that nobody needs, or spread them over " +
			"namespaces",
	},

	{
		Code: "ISM0300", Severity: Warning,
		Title: "a node of which nothing is heard; others are called in the place of what it serves",
		Remedy: "see whether its host and agent run and reach the control plane; if it is gone for good: isthmus " +
			"node revoke",
	},
	{
		Code: "ISM0301", Severity: Warning, Page: "service",
		Title:  "a service without a ready endpoint",
		Remedy: "see why their programs fail their readiness probes: isthmus endpoints shows them",
	},
	{
		Code: "ISM0302", Severity: Warning, Page: "service", Aliases: []string{"KIA0701"},
		Title:  "a targetPort that none of the workloads behind it has",
		Remedy: "write one of these, or add the port to the workloads in their nodes' settings",
	},
	{
		Code: "ISM0305", Severity: Warning, Page: "authorizationpolicy",
		Title:  "a path of a policy or an export that no request can have",
		Remedy: "write the path as requests carry it",
	},
	{
		Code: "ISM0306", Severity: Warning, Page: "authorizationpolicy", Aliases: []string{"KIA0102"},
		Title:  "a method in lower case where it matches nothing that programs send",
		Remedy: "write it in upper case",
	},
	{
		Code: "ISM0325", Severity: Warning, Page: "federatedimport",
		Title:  "an import of a service that its peer does not offer",
		Remedy: "ask the peer's administrators to export it, or correct the name",
	},
	{
		Code: "ISM0326", Severity: Error, Page: "federatedimport",
		Title:  "an import of a service that its peer offers in another protocol",
		Remedy: "write the peer's protocol",
	},
	{
		Code: "ISM0327", Severity: Warning, Page: "federatedimport",
		Title:  "a caller of an import that no workload of the mesh is",
		Remedy: "correct the service account",
	},
	{
		Code: "ISM0328", Severity: Warning, Page: "federatedexport",
		Title:  "an export of a workload whose policies refuse every call of the peer",
		Remedy: "allow the peer's callers in an AuthorizationPolicy",
	},
	{
		Code: "ISM0329", Severity: Error, Page: "federatedexport",
		Title:  "an export of what is imported",
		Remedy: "ask the administrators of that mesh to export it to the peer themselves",
	},
	{
		Code: "ISM0330", Severity: Warning, Page: "federatedexport",
		Title: "an export of a service without a ready endpoint",
		Remedy: "start the workload, or correct the Service's selector and targetPort: isthmus endpoints shows " +
			"them",
	},
	{
		Code: "ISM0331", Severity: Warning, Page: "federatedexport",
		Title:  "a rule of an export that no request can meet",
		Remedy: "correct the caller",
	},
	{
		Code: "ISM0332", Severity: Warning, Page: "authorizationpolicy",
		Title:  "a peer's caller in a policy on raw TCP, where it is not known",
		Remedy: "name the Service's port http-…, or allow the peer's gateway",
	},
	{
		Code: "ISM0333", Severity: Warning, Page: "federatedimport",
		Title:  "an import that nobody can serve now",
		Remedy: "isthmus peer list shows how it stands with the peers; a source of weight 0 serves nothing",
	},
	{
		Code: "ISM0334", Severity: Warning,
		Title:  "a peer that does not exist, beside one that was most likely meant",
		Remedy: "correct the name",
	},

	{
		Code: "ISM0340", Severity: Warning,
		Title:  "connections of a workload that were open before its capture and go on outside the mesh",
		Remedy: "restart the program: what it opens from then on is captured; in STRICT mode they end at once",
	},
	{
		Code: "ISM0341", Severity: Info,
		Title:  "ports of a workload that its node excludes from capture",
		Remedy: "if that is not meant, take them out of excludeInboundPorts in the node's settings",
	},
	{
		Code: "ISM0342", Severity: Info,
		Title: "callers in plaintext of a workload that takes it, whom STRICT would refuse",
		Remedy: "bring the callers into the mesh, and let its workloads call the Service's name, no address; " +
			"once nobody has been named for an hour, nothing speaks against STRICT",
	},
	{
		Code: "ISM0345", Severity: Warning, Aliases: []string{"KIA0004", "IST0101"},
		Title:  "a policy or a Service that selects no workload",
		Remedy: "isthmus status -o wide lists the workloads; write it in their namespace",
	},
	{
		Code: "ISM0346", Severity: Warning, Page: "authorizationpolicy", Aliases: []string{"KIA0106", "KIA0101"},
		Title:  "a caller in a policy that no workload of the mesh is",
		Remedy: "isthmus services -o json lists the identities; correct it, or let the workload join",
	},
	{
		Code: "ISM0347", Severity: Warning, Page: "authorizationpolicy", Aliases: []string{"KIA0106"},
		Title:  "a principal that is written so that it matches nobody",
		Remedy: "write <trust domain>/ns/<namespace>/sa/<service account>",
	},
	{
		Code: "ISM0348", Severity: Warning, Page: "authorizationpolicy",
		Title:  "a port in a policy at which no workload that it selects listens",
		Remedy: "write the workload's port, not the Service's",
	},
}

var rows = func() map[Code]Row {
	m := make(map[Code]Row, len(Registry))
	for _, r := range Registry {
		m[r.Code] = r
	}
	return m
}()
