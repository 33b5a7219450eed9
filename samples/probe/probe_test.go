package probe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

func try(t *testing.T, in io.Reader) []Result {
	t.Helper()
	var out bytes.Buffer
	if err := Main(t.Context(), in, &out); err != nil {
		t.Fatal(err)
	}
	var all []Result
	for dec := json.NewDecoder(&out); dec.More(); {
		var r Result
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func TestHTTP(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Served-By", "me")
		w.WriteHeader(403)
		fmt.Fprint(w, r.Method, " ", r.Header.Get("X-Forged"))
	}))
	t.Cleanup(srv.Close)
	r := try(t, strings.NewReader(`{"http":{"method":"DELETE","url":"`+srv.URL+
		`","headers":{"x-forged":"yes"},"timeout":3000000000}}`))[0]
	if r.Status != 403 || r.Body != "DELETE yes" || r.Headers["served-by"] != "me" || r.Error != "" {
		t.Fatalf("%+v", r)
	}
}

func TestTCPTellsWhatWasReceivedBeforeTheTimeout(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			io.WriteString(conn, "BANNER\n")
			io.Copy(io.Discard, conn)
		}
	}()
	r := try(t, strings.NewReader(`{"tcp":{"address":"`+ln.Addr().String()+`","timeout":200000000}}`))[0]
	if r.Body != "BANNER\n" || !strings.Contains(r.Error, "timeout") {
		t.Fatalf("%+v", r)
	}
}

func TestWatchSaysWhenTheAnswerWasCut(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "tick\n")
		w.(http.Flusher).Flush()
		waittest.Pace(100 * time.Millisecond)
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(srv.Close)
	in, end := io.Pipe()
	defer end.Close()
	go io.WriteString(end, `{"watch":{"method":"GET","url":"`+srv.URL+`","timeout":0}}`+"\n")
	rs := try(t, in)
	if len(rs) != 2 || !rs[0].Began || rs[0].Body != "tick\n" || rs[1].Error != "unexpected EOF" ||
		rs[1].Elapsed < 100*time.Millisecond {
		t.Fatalf("%+v", rs)
	}
}

func TestLoadCountsEveryRequest(t *testing.T) {
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Served-By", "me")
		if n++; n == 3 {
			w.WriteHeader(503)
			io.WriteString(w, "no peer")
		}
	}))
	t.Cleanup(srv.Close)
	in, end := io.Pipe()
	go func() {
		io.WriteString(end, `{"load":{"method":"GET","url":"`+srv.URL+
			`","timeout":1000000000,"workers":1,"pause":10000000}}`+"\n")
		waittest.Pace(300 * time.Millisecond)
		end.Close()
	}()
	r := try(t, in)[0]
	if r.Failures != 1 || !strings.Contains(r.FirstFailure(), " s, answer on a kept connection: 503 no peer") ||
		r.Requests < 5 || r.ServedBy["me"] != r.Requests-1 {
		t.Fatalf("%+v", r)
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, in := range []string{"", "{}", `{"udp":{}}`} {
		if err := Main(t.Context(), strings.NewReader(in), io.Discard); err == nil {
			t.Errorf("%q was accepted", in)
		}
	}
}
