package demo

import (
	"strings"
	"testing"
)

func TestClosingTextSuggestsWhatShowsTheMeshes(t *testing.T) {
	text := closingText(Options{Isthmus: "/opt/isthmus", RunDir: "/run/demo", Prefix: DefaultPrefix})
	for _, want := range []string{
		"/opt/isthmus services --socket /run/demo/retail/control.sock\n",
		"/opt/isthmus describe default/storefront --socket /run/demo/retail/control.sock\n",
		"/opt/isthmus logs --run-dir /run/demo/retail/node/run\n",
		"/opt/isthmus logs --run-dir /run/demo/cards/gateway/run\n",
		"/opt/isthmus demo --run-dir /run/demo --prefix isthmus exec storefront -- curl ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
}
