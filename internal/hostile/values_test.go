package hostile

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// notUTF8 stands for a byte that is no UTF-8, which JSON could not carry.
const notUTF8 = "\ue000"

// common are values that mean something somewhere.
var common = []string{
	"", " ", "*", "**", "{*}", "{**}", "/", "//", "/*", "/{*}", "/{**}", "/{*}/{**}", "/{**}/{*}", "/{*}/b/{**}/c",
	"/{**}.html", "/{*}.html", "/a{*}",
	"/{*}/{*}/{*}/{*}/{*}/{*}/{*}/{*}", "/{x}", "/{x=*}", "/a//{*}", "/{*}//", "/./{*}", "/../{*}", "a*b", "*a*", "x*",
	"*x", "A", "é", "漢字", "🙂", "%2f", "/a%20b",
	"10.0.0.1", "10.0.0.1/8", "10.0.0.0/33", "::1/128", "0.0.0.0/0", "::/0", "127.0.0.1", "240.240.0.1",
	"::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "fe80::1%eth0", "1.2.3", "0x7f000001",
	"80", "0", "08", "+80", "65536", "-1", "1e3", "true", "null", "~", "spiffe://a/ns/b/sa/c",
	"cluster.local/ns/a/sa/b", "*/ns/a/sa/b", "cluster.local/*", "peer.example/ns/a/sa/b",
	"request.headers[x-a]", "request.headers[x a]", "request.headers[x\ny]", "request.headers[]",
	"request.headers[:path]", "request.headers[é]", "request.headers[a]b]",
	"request.headers[cookie]", "source.ip", "source.principal", "source.namespace", "source.trustDomain",
	"source.serviceAccount", "connection.sni", "destination.port", "destination.ip", "remote.ip",
	"localhost", "a.localhost", "a.example.", "A.Example", "xn--80ak6aa92e.com", "HTTP", "HTTPS", "HTTP2", "GRPC",
	"GRPC-WEB", "TLS", "TCP", "UDP", "http", "kubernetes.io/h2c",
	"unix:///x", "gw.example:15443", "[2001:db8::1]:15443", "192.0.2.1:1", "STRICT", "PERMISSIVE", "DISABLE", ".",
	"~.", "kube-system", "isthmus-system", "default",
}

// odd are characters and runs of them that mean something to somebody on the way.
var odd = append(strings.Split("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", ""),
	"\n", "\r", "\r\n", "\t", "\x00", " ", "\x7f", "\x1b", "\u0085", "\u2028", "\u202e", "é", "漢", "🙂", "\ufffd",
	notUTF8,
	"{*}", "{**}", "{", "}", "%00", "%zz", "%REQ(x)%", "%%", "..", "//", "/.", "(?:", "\\E", "[^a]", "$1",
)

// lengths lie around every bound that something on the way has.
var lengths = []int{
	16, 17, 63, 64, 65, 100, 128, 253, 254, 255, 256, 257, 300, 1000, 1024, 1025, 2048, 2049, 4096, 4097, 8192, 8193,
	16384, 32768, 60_000, 65_535, 65_536, 66_000, 200_000,
}

var sizes = []int{0, 1, 2, 5, 16, 17, 64, 65, 128, 129, 256, 257, 800, 1024, 1025, 5000}

var numbers = []any{
	0, -1, 1, 2, 7, 8, 80, 443, 1000, 1001, 15001, 15006, 65_535, 65_536, 1<<31 - 1, 1 << 31, -1 << 31,
	1<<32 - 1, 1 << 32, 1 << 53, 0.5, 1e300, "80", "a",
}

var customs = []any{
	"", "0s", "1s", "-1s", "1h", "876000h", "1.5s", "1ns", "2026-01-01T00:00:00Z",
	"9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", 0, 1, -1, 80, 65_536, 1 << 40, "http", true,
	"9223372036854775807ns",
}

// valuesFor are the values to try at a leaf where seed stands now, if anything.
func valuesFor(l leaf, seed any) iter.Seq[any] {
	return func(yield func(any) bool) {
		ok := true
		put := func(v any) {
			if ok {
				ok = yield(v)
			}
		}
		switch l.kind {
		case text:
			texts(seed, put)
		case boolean:
			put(true)
			put(false)
			put("true")
		case number:
			for _, v := range numbers {
				put(v)
			}
		case enum:
			for _, v := range l.names {
				put(v)
			}
			put("")
			put("NONSENSE")
			put(0)
			put(77)
		case custom:
			for _, v := range customs {
				put(v)
			}
			put(map[string]any{"nanos": 1})
		case list:
			for _, n := range sizes {
				if v, ok := many(seed, n); ok {
					put(v)
				}
			}
		case mapping:
			for _, s := range common {
				put(map[string]any{s: "v"})
			}
			for _, n := range sizes[:12] {
				m := map[string]any{}
				for i := range n {
					m[fmt.Sprintf("key-%d", i)] = "v"
				}
				put(m)
			}
			for _, n := range lengths[:12] {
				put(map[string]any{strings.Repeat("k", n): strings.Repeat("v", n)})
			}
		}
		put(nil)
		put([]any{})
		put(map[string]any{})
		put([]any{nil})
	}
}

func texts(seed any, put func(any)) {
	bases := []string{"/a/{*}/b", "x", "a.example"}
	if s, ok := seed.(string); ok && s != "" {
		bases = append([]string{s, strings.ToUpper(s), s + s}, bases...)
		put(s + ".")
		put("*" + s)
		put(s + "*")
	}
	for _, v := range common {
		put(v)
	}
	for _, b := range bases {
		for _, c := range odd {
			put(c + b)
			put(b[:len(b)/2] + c + b[len(b)/2:])
			put(b + c)
		}
	}
	for _, n := range lengths {
		for _, b := range bases {
			if len(b) < n {
				put(b[:1] + strings.Repeat("a", n-len(b)) + b[1:])
				put(b + strings.Repeat("b", n-len(b)))
			}
		}
		put(strings.Repeat("é", n/2))
		put(labels(n))
		put("/" + strings.Repeat("é", n/2))
		put("/" + strings.Repeat("@+", n/2)) // each in two spellings
		put("/" + strings.Repeat("{*}/", n/4) + "x")
		put("request.headers[" + strings.Repeat("h", n) + "]")
		put(strings.Repeat("*", n))
	}
}

// labels is a host name of n characters.
func labels(n int) string { return strings.Trim(strings.Repeat("a.b-c0.", n/7+1)[:n], ".-") }

// many is a list of n items that are like a seed's first one, and unlike each other.
func many(seed any, n int) (any, bool) {
	items, _ := seed.([]any)
	if n == 0 {
		return []any{}, true
	}
	if len(items) == 0 {
		return nil, false
	}
	out := make([]any, n)
	for i := range out {
		out[i] = variant(items[0], i)
	}
	return out, true
}

// variant is a value like another.
func variant(v any, i int) any {
	if i == 0 {
		return v
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = variant(x, i)
		}
		return out
	case []any:
		out := slices.Clone(v)
		for j := range out {
			out[j] = variant(out[j], i)
		}
		return out
	case int64:
		return v + int64(i)
	case float64:
		return v + float64(i)
	case string:
		return another(v, i)
	}
	return v
}

func another(s string, i int) string {
	if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is4() {
		return fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		return fmt.Sprintf("10.%d.%d.9", i>>8, i&255)
	}
	if n, err := strconv.Atoi(s); err == nil {
		return strconv.Itoa(n + i)
	}
	if slices.Contains([]string{"TCP", "HTTP", "TLS", "GET", "STRICT", "default", "source.ip", "g0000"}, s) {
		return s
	}
	switch {
	case strings.HasSuffix(s, "*"):
		return fmt.Sprintf("%s%d*", s[:len(s)-1], i)
	case strings.HasPrefix(s, "*"):
		return fmt.Sprintf("*%d%s", i, s[1:])
	case strings.HasSuffix(s, "]"):
		return fmt.Sprintf("%s%d]", s[:len(s)-1], i)
	case strings.HasSuffix(s, ".example"):
		return fmt.Sprintf("n%d.%s", i, s)
	}
	return s + strconv.Itoa(i)
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
