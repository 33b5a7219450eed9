// Package yamltest writes the objects of a configuration as YAML, for tests.
package yamltest

import "strings"

// Object returns the document of one object, its marker included. An object of the whole mesh has no namespace. The
// spec is YAML from the first column on; without one the object has none.
func Object(apiVersion, kind, namespace, name, spec string) string {
	metadata := "name: " + name
	if namespace != "" {
		metadata += ", namespace: " + namespace
	}
	text := "---\napiVersion: " + apiVersion + "\nkind: " + kind + "\nmetadata: {" + metadata + "}\n"
	if spec = strings.Trim(spec, "\n"); spec != "" {
		text += "spec:\n  " + strings.ReplaceAll(spec, "\n", "\n  ") + "\n"
	}
	return text
}

// Namespace returns the document of a Namespace.
func Namespace(name string) string { return Object("v1", "Namespace", "", name, "") }

// Service returns the document of a Service of the workloads with one label app. Each port is the inside of a mapping:
// "name: http, port: 80, targetPort: 8080".
func Service(namespace, name, app string, ports ...string) string {
	return Object("v1", "Service", namespace, name,
		"selector: {app: "+app+"}\nports: [{"+strings.Join(ports, "}, {")+"}]")
}

// Policy returns the document of an AuthorizationPolicy.
func Policy(namespace, name, spec string) string {
	return Object("security.istio.io/v1", "AuthorizationPolicy", namespace, name, spec)
}
