// Package yamltest writes configuration objects as YAML for tests.
package yamltest

import "strings"

// Object returns an object's document, including its marker. An object of the whole mesh has no namespace. spec is
// YAML, not indented; if it is empty, the object has no spec.
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

// Service returns the document of a Service that selects one app label. Each port is the content of a mapping: "name:
// http, port: 80, targetPort: 8080".
func Service(namespace, name, app string, ports ...string) string {
	return Object("v1", "Service", namespace, name,
		"selector: {app: "+app+"}\nports: [{"+strings.Join(ports, "}, {")+"}]")
}

// Policy returns the document of an AuthorizationPolicy.
func Policy(namespace, name, spec string) string {
	return Object("security.istio.io/v1", "AuthorizationPolicy", namespace, name, spec)
}
