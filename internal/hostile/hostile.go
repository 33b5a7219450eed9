// Package hostile contains only tests. They generate malicious objects of every kind by walking its schema, and check
// two properties: no object causes a panic, and Envoy accepts whatever Isthmus accepts.
package hostile
