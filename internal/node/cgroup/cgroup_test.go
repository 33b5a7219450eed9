package cgroup

import (
	"strings"
	"testing"
)

func TestCountable(t *testing.T) {
	for _, c := range []struct {
		host    bool
		release string
		want    string
	}{
		{true, "5.15.0-100-generic", ""},
		{false, "6.11.0", ""},
		{false, "6.18.44-fc", ""},
		{false, "7.0", ""},
		{false, "what", ""},
		{
			false, "6.10.3-amd64",
			"Linux before 6.11 (this is 6.10.3-amd64) does not know Envoy's sockets: start the agent's container in the host's",
		},
		{false, "5.15.0", "--cgroupns=host"},
	} {
		err := countable(c.host, c.release)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("host %v, %s: %v", c.host, c.release, err)
		}
	}
}
