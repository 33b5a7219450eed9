package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"isthmus.dev/isthmus/internal/adminapi"
)

const (
	firstRoot = "1111111111111111111111111111111111111111111111111111111111111111"
	nextRoot  = "2222222222222222222222222222222222222222222222222222222222222222"
)

func (f *fake) CAStatus(_ context.Context, r *adminapi.Empty) (*adminapi.CAStatusResponse, error) {
	return answer(f, *r, &f.ca)
}

func (f *fake) CARotate(_ context.Context, r *adminapi.CARotateRequest) (*adminapi.CAStatusResponse, error) {
	f.acted = append(f.acted, strings.TrimSpace("rotate"+rotateArgs(*r)))
	return answer(f, *r, &f.ca)
}

func rotating() adminapi.CAStatusResponse {
	return adminapi.CAStatusResponse{
		TrustDomain: "cards.example",
		Roots: []adminapi.CARoot{
			{SHA256: firstRoot, NotAfter: now.Add(240 * time.Hour), Signs: true},
			{SHA256: nextRoot, NotAfter: now.Add(2400 * time.Hour)},
		},
		Rotation: &adminapi.CARotation{
			Step: "prepared", Began: now.Add(-time.Minute), Since: now.Add(-time.Minute), OldSHA256: firstRoot,
			NewSHA256: nextRoot,
			Waits: []adminapi.CAWait{
				{What: "node", Name: "rack1", Why: "its agent is not connected"},
				{
					What: "invitation", Name: "bank", Why: "is open and pins the old root",
					Until: now.Add(5 * time.Minute),
				},
			},
		},
	}
}

func TestCAStatus(t *testing.T) {
	f := &fake{ca: rotating()}
	got := run(t, "", "ca", "status", "--socket", serve(t, f))
	want := `  trust domain  cards.example
  root          kept by Isthmus

ROOT               SIGNS  ENDS
1111111111111111…  yes    in 10d
2222222222222222…  no     in 100d

  rotation  prepared since 60s ago: the new root is trusted beside the old one, which signs; everybody has to acknowledge both
  began     60s ago
  old root  1111 1111 1111 1111 1111 1111 1111 1111 1111 1111 1111 1111 1111 1111 1111 1111
  new root  2222 2222 2222 2222 2222 2222 2222 2222 2222 2222 2222 2222 2222 2222 2222 2222

WAITS FOR   NAME   UNTIL  WHY
node        rack1  -      its agent is not connected
invitation  bank   in 5m  is open and pins the old root
  Next: bring them back, or go on without them: isthmus ca rotate --force
`
	if got.code != 0 || got.out != want {
		t.Errorf("code %d, got\n%s\nwant\n%s%s", got.code, got.out, want, got.err)
	}
	f.ca = adminapi.CAStatusResponse{TrustDomain: "cards.example", Operator: true}
	if got := run(t, "", "ca", "status", "--socket", serve(t, f)); !strings.Contains(got.out,
		"an operator's: isthmus ca rotate does not replace it") {
		t.Errorf("got %s", got.out)
	}
}

func TestCARotateAsks(t *testing.T) {
	for _, c := range []struct {
		name, in string
		args     []string
		terminal bool
		code     int
		acted    string
		says     string
	}{
		{"a script without --yes", "", nil, false, 64, "", "Next: isthmus ca rotate --socket"},
		{"a script with --yes", "", []string{"--yes"}, false, 0, "rotate", ""},
		{"typed", "cards.example\n", nil, true, 0, "rotate", `Type "cards.example" to continue`},
		{"typed wrong", "cards\n", nil, true, 1, "", "nothing was changed"},
		{
			"by force, names who is left behind", "cards.example\n",
			[]string{"--force"},
			true, 0, "rotate --force",
			"goes on without node rack1, invitation bank",
		},
		{
			"by force, repeats the flag", "",
			[]string{"--force"},
			false, 64, "",
			"Next: isthmus ca rotate --force --socket",
		},
		{"cancelled", "", []string{"--cancel", "--yes"}, false, 0, "rotate --cancel", ""},
		{"both", "", []string{"--cancel", "--force", "--yes"}, false, 64, "", "not both"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{ca: rotating()}
			got := runAs(t, World{In: strings.NewReader(c.in), Terminal: c.terminal}, Verbs{},
				append([]string{"ca", "rotate", "--socket", serve(t, f)}, c.args...)...)
			if acted := strings.Join(f.acted, ", "); got.code != c.code || acted != c.acted ||
				!strings.Contains(got.err, c.says) {
				t.Errorf("code %d, did %q, said\n%s", got.code, acted, got.err)
			}
		})
	}
	got := run(t, "", "ca", "rotate", "--yes", "--socket",
		serve(t, refuse(codes.FailedPrecondition, "this mesh stands under an operator's root")))
	if got.code == 0 || !strings.Contains(got.err, "an operator's root") {
		t.Errorf("a refusal: %+v", got)
	}
}
