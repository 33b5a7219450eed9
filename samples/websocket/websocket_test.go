package websocket

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestMessagesGoBothWays(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := Accept(w, r)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			said, err := c.Receive()
			if err != nil {
				return
			}
			if c.write(ping, []byte("there?")) != nil || c.Send("you said "+said) != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	c, header, err := Dial(t.Context(), srv.URL+"/live")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := header.Get("Upgrade"); got != "websocket" {
		t.Errorf("upgrade: %q", got)
	}
	for _, said := range []string{"", "hello", strings.Repeat("long ", 1000)} {
		if err := c.Send(said); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Receive(); err != nil || got != "you said "+said {
			t.Errorf("%q came back as %q, %v", said, got, err)
		}
	}
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("without an upgrade: %s", resp.Status)
	}
}

// The example of RFC 6455 §1.3.
func TestAccepted(t *testing.T) {
	if got := accepted("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Error(got)
	}
}

// The frames of RFC 6455 §5.7, and what is none.
func TestFrames(t *testing.T) {
	for _, c := range []struct {
		name   string
		client bool
		bytes  string
		want   string
		err    string
	}{
		{"unmasked", true, "\x81\x05Hello", "Hello", ""},
		{"masked", false, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "Hello", ""},
		{"masked by a server", true, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "", "clients mask"},
		{"unmasked by a client", false, "\x81\x05Hello", "", "clients mask"},
		{"closed", true, "\x88\x00", "", "EOF"},
		{"too long", true, "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00", "", "too long"},
		{"a part", true, "\x01\x03Hel", "", "not understood"},
		{"cut", true, "\x81\x05He", "", "unexpected EOF"},
	} {
		ours, theirs := net.Pipe()
		go io.Copy(io.Discard, theirs)
		conn := &Conn{Conn: ours, in: bufio.NewReader(strings.NewReader(c.bytes)), client: c.client}
		got, err := conn.Receive()
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
		ours.Close()
		theirs.Close()
	}
}

func TestRefused(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not you", http.StatusForbidden)
	}))
	t.Cleanup(srv.Close)
	_, _, err := Dial(t.Context(), srv.URL)
	var refused *Refused
	if !errors.As(err, &refused) || refused.Status != 403 || err.Error() != "403 not you" {
		t.Errorf("%v", err)
	}
}
