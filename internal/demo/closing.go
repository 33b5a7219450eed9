package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// closingText says what to try while the demo runs, as commands to copy.
func closingText(o Options) string {
	f := files{o.RunDir}
	self := nearest(o.Isthmus)
	at := func(line string) string { return self + " demo exec " + line }
	if o.RunDir != DefaultRunDir || o.Prefix != DefaultPrefix {
		at = func(line string) string {
			return fmt.Sprintf("%s demo --run-dir %s --prefix %s exec %s", self, o.RunDir, o.Prefix, line)
		}
	}
	var b strings.Builder
	b.WriteString("\nBoth meshes are up. In another terminal:\n")
	section := func(title string, lines ...string) {
		fmt.Fprintf(&b, "\n  %s\n", title)
		for _, l := range lines {
			fmt.Fprintf(&b, "    %s\n", l)
		}
	}
	ask := func(mesh, line string) string { return self + " " + line + " --socket " + f.socket(mesh) }
	logs := func(mesh, agent string) string { return self + " logs --run-dir " + f.runDir(mesh, agent) }
	if o.Separate {
		invitation := filepath.Join(f.dir, "invitation")
		section("Nothing crosses between the two yet. Let them meet:",
			ask("cards", "peer invite retail --out "+invitation),
			ask("retail", "peer accept --token-file "+invitation),
			"cp "+filepath.Join(f.federation("cards"), "export-payments.yaml")+" "+f.config("cards"),
			"cp "+filepath.Join(f.federation("retail"), "import-payments.yaml")+" "+f.config("retail"))
	}
	section("Buy something: the storefront charges the card at payments, in the other mesh, under a local name.",
		at(`storefront -- curl -s -d '{"item":"tea","card":"4111111111111111"}' http://127.0.0.1:8080/checkout`),
		at(`storefront -- curl -s http://payments.default/v1/charges/headers`))
	section("Be refused: a caller that the import does not list, a method that the export does not.",
		at(`catalogue -- curl -s http://payments.default/v1/charges/headers`),
		at(`storefront -- curl -s -X DELETE http://payments.default/v1/charges/ch_1`))
	section("Look:",
		ask("retail", "status"), ask("retail", "services"), ask("retail", "describe default/storefront"),
		ask("retail", "access"))
	section("Look across:",
		ask("cards", "peer status retail"), ask("cards", "exports"), ask("retail", "imports"),
		ask("retail", "peer probe cards --import payments"))
	section("See what was refused, by a node, and what crossed, by a gateway:",
		logs("retail", "node"), logs("cards", "gateway"))
	section("Close the strip, and open it again:",
		ask("cards", "peer suspend retail"), ask("cards", "peer resume retail"))
	section("Change the configuration; it is watched:",
		"$EDITOR "+filepath.Join(f.config("cards"), "payments.yaml"))
	fmt.Fprintf(&b, "\nLogs: %s\nCtrl-C ends the demo and removes all of this.\n\n", filepath.Join(f.dir, "logs"))
	return b.String()
}

// nearest shortens a path for typing in the current directory.
func nearest(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(here, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return path
	}
	if !strings.Contains(rel, "/") {
		return "./" + rel
	}
	return rel
}
