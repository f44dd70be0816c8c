package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// The requests of these tables are written with \n for CRLF; § is a bare LF.
func onWire(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\n", "\r\n"), "§", "\n")
}

// soundRequests must pass, whole and byte by byte.
var soundRequests = map[string]struct {
	wire  string
	heads int
}{
	"get":              {"GET / HTTP/1.1\nHost: x\n\n", 1},
	"old":              {"GET / HTTP/1.0\n\n", 1},
	"length":           {"POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello", 1},
	"length of 0":      {"POST / HTTP/1.1\nHost: x\nContent-Length: 0\n\n", 1},
	"length and space": {"POST / HTTP/1.1\nHost: x\nContent-Length: \t5 \t\n\nhello", 1},
	"length on 1.0":    {"POST / HTTP/1.0\nContent-Length: 5\n\nhello", 1},
	"LF in a body":     {"POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\n§§§§§", 1},
	"chunked":          {"POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n5\nhello\nA;ext=\"v\"\n0123456789\n0\n\n", 1},
	"chunked, capital": {"POST / HTTP/1.1\nHost: x\ntransfer-encoding: CHUNKED\n\n00005\nhello\n000\n\n", 1},
	"trailers":         {"POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n0\nX-Sum: 42\nX-More:\n\n", 1},
	"pipeline":         {"GET / HTTP/1.1\nHost: x\n\nPOST / HTTP/1.1\nHost: x\nContent-Length: 1\n\nyGET / HTTP/1.1\nHost: x\n\n", 3},
	"chunked pipeline": {"POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n1\nx\n0\nA: b\n\nPOST / HTTP/1.1\nHost: x\nContent-Length: 1\n\ny", 2},
	"line after body":  {"POST / HTTP/1.1\nHost: x\nContent-Length: 1\n\ny\nGET / HTTP/1.1\nHost: x\n\n", 2},
	"odd headers":      {"GET /ü?a=b HTTP/1.1\nHost: x\nX-Empty:\nX-Utf8: ü\nX-Tab: a\tb\nX-Very-Long-Name-Of-A-Header: 1\nX_1: 2\n\n", 1},
	"many cookies":     {"GET / HTTP/1.1\nHost: x\nCookie: a=b\nCookie: c=d\nAccept: a,\nAccept: b\n\n", 1},
}

// malformedRequests must not pass.
var malformedRequests = map[string]string{
	"CL.TE":                      "POST / HTTP/1.1\nHost: x\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n",
	"TE.CL":                      "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nContent-Length: 4\n\n5\nhello\n0\n\n",
	"TE.TE":                      "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n",
	"TE.TE, identity":            "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nTransfer-Encoding: identity\n\n0\n\n",
	"TE xchunked":                "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: xchunked\n\n0\n\n",
	"TE chunked, long":           "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked" + strings.Repeat(" ", 30) + "x\n\n0\n\n",
	"TE list":                    "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: gzip, chunked\n\n0\n\n",
	"TE empty":                   "POST / HTTP/1.1\nHost: x\nTransfer-Encoding:\n\n0\n\n",
	"TE vertical tab":            "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: \vchunked\n\n0\n\n",
	"TE quoted":                  "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: \"chunked\"\n\n0\n\n",
	"TE on HTTP/1.0":             "POST / HTTP/1.0\nHost: x\nTransfer-Encoding: chunked\n\n0\n\n",
	"TE and CL on HTTP/1.0":      "POST / HTTP/1.0\nHost: x\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n",
	"folded value":               "GET / HTTP/1.1\nHost: x\nX-A: b\n c\n\n",
	"folded by a tab":            "GET / HTTP/1.1\nHost: x\nX-A: b\n\tc\n\n",
	"folded TE":                  "POST / HTTP/1.1\nHost: x\nTransfer-Encoding:\n chunked\n\n0\n\n",
	"folded first":               "GET / HTTP/1.1\n Host: x\n\n",
	"folded CL":                  "POST / HTTP/1.1\nHost: x\nContent-Length: 5\n 5\n\nhello",
	"bare LF everywhere":         "GET / HTTP/1.1§Host: x§§",
	"bare LF after request line": "GET / HTTP/1.1§Host: x\n\n",
	"bare LF after a header":     "GET / HTTP/1.1\nHost: x§X-A: b\n\n",
	"bare LF after TE":           "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked§\n0\n\n",
	"bare LF ends the head":      "GET / HTTP/1.1\nHost: x\n§",
	"bare CR in a value":         "GET / HTTP/1.1\nHost: x\nX-A: b\rc\n\n",
	"bare CR in a name":          "GET / HTTP/1.1\nHost: x\nX-\rA: b\n\n",
	"bare CR in request line":    "GET /\ra HTTP/1.1\nHost: x\n\n",
	"CR CR LF":                   "GET / HTTP/1.1\nHost: x\r\n\n",
	"NUL in a value":             "GET / HTTP/1.1\nHost: x\nX-A: b\x00c\n\n",
	"two Host":                   "GET / HTTP/1.1\nHost: x\nHost: y\n\n",
	"two Host, equal":            "GET / HTTP/1.1\nHost: x\nhost: x\n\n",
	"two CL":                     "POST / HTTP/1.1\nHost: x\nContent-Length: 5\nContent-Length: 6\n\nhello",
	"two CL, equal":              "POST / HTTP/1.1\nHost: x\nContent-Length: 5\nContent-Length: 5\n\nhello",
	"CL list":                    "POST / HTTP/1.1\nHost: x\nContent-Length: 5, 5\n\nhello",
	"CL +5":                      "POST / HTTP/1.1\nHost: x\nContent-Length: +5\n\nhello",
	"CL -1":                      "POST / HTTP/1.1\nHost: x\nContent-Length: -1\n\n",
	"CL 0x5":                     "POST / HTTP/1.1\nHost: x\nContent-Length: 0x5\n\nhello",
	"CL 1_0":                     "POST / HTTP/1.1\nHost: x\nContent-Length: 1_0\n\n0123456789",
	"CL empty":                   "POST / HTTP/1.1\nHost: x\nContent-Length:\n\n",
	"CL 2^63":                    "POST / HTTP/1.1\nHost: x\nContent-Length: 9223372036854775808\n\n",
	"space before colon":         "POST / HTTP/1.1\nHost: x\nTransfer-Encoding : chunked\n\n0\n\n",
	"space in a name":            "GET / HTTP/1.1\nHost: x\nX A: b\n\n",
	"no name":                    "GET / HTTP/1.1\nHost: x\n: b\n\n",
	"no colon":                   "GET / HTTP/1.1\nHost: x\nX-A\n\n",
	"LF first":                   "§GET / HTTP/1.1\nHost: x\n\n",
	"CR first":                   "\rGET / HTTP/1.1\nHost: x\n\n",
	"chunk size with LF":         "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n5§hello\n0\n\n",
	"chunk size with CR":         "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n5\rhello\n0\n\n",
	"chunk size with space":      "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n5 \nhello\n0\n\n",
	"chunk size 0x5":             "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n0x5\nhello\n0\n\n",
	"chunk size +5":              "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n+5\nhello\n0\n\n",
	"chunk size none":            "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n;a\nhello\n0\n\n",
	"chunk size 2^64":            "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n10000000000000005\nhello\n0\n\n",
	"chunk extension with LF":    "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n5;a§hello\n0\n\n",
	"chunk ends with LF":         "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n5\nhello§0\n\n",
	"chunk longer than said":     "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n4\nhello\n0\n\n",
	"last chunk with LF":         "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n5\nhello\n0§§",
	"trailers end with LF":       "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n0\nX-A: b\n§",
	"trailer folded":             "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n0\nX-A: b\n c\n\n",
	"trailer CL":                 "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n0\nContent-Length: 5\n\n",
}

// scanAll scans p in reads of at most size bytes and returns how many were fine.
func scanAll(f *framing, p []byte, size int) int {
	good := 0
	for len(p) > 0 {
		part := p[:min(size, len(p))]
		n := f.scan(part)
		good += n
		if n < len(part) {
			break
		}
		p = p[len(part):]
	}
	return good
}

func TestFramingLetsSoundRequestsPass(t *testing.T) {
	for name, c := range soundRequests {
		for _, size := range []int{1, 3, 4096} {
			var f framing
			p := []byte(onWire(c.wire))
			if n := scanAll(&f, p, size); n != len(p) || f.fault != "" || f.at != atStart || f.heads != c.heads {
				t.Errorf("%s by %d: %d of %d bytes, fault %q, at %d, %d heads", name, size, n, len(p), f.fault, f.at, f.heads)
			}
		}
	}
}

func TestFramingStopsMalformedRequests(t *testing.T) {
	for name, request := range malformedRequests {
		for _, size := range []int{1, 3, 4096} {
			var f framing
			if p := []byte(onWire(request)); scanAll(&f, p, size) == len(p) || f.fault == "" {
				t.Errorf("%s by %d: passes", name, size)
			}
		}
	}
}

func TestFramingAllocatesNothing(t *testing.T) {
	p := []byte(onWire(soundRequests["chunked pipeline"].wire + soundRequests["length"].wire + soundRequests["odd headers"].wire))
	if n := testing.AllocsPerRun(100, func() {
		var f framing
		f.scan(p)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzFraming checks that it matters in how many reads bytes come to nobody, and
// that net/http sees the same requests in what passes, to the byte.
func FuzzFraming(f *testing.F) {
	for _, c := range soundRequests {
		f.Add([]byte(onWire(c.wire)))
	}
	for _, request := range malformedRequests {
		f.Add([]byte(onWire(request)))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var whole, single framing
		good := whole.scan(p)
		if n := scanAll(&single, p, 1); n != good || single != whole {
			t.Fatalf("at once %d bytes, %+v\none by one %d, %+v", good, whole, n, single)
		}
		if good == len(p) && whole.fault != "" || good < len(p) && whole.fault == "" {
			t.Fatalf("%d of %d bytes, fault %q", good, len(p), whole.fault)
		}
		r := bufio.NewReader(bytes.NewReader(p[:good]))
		for n := 1; ; n++ {
			request, err := http.ReadRequest(r)
			if err != nil || request.Method == preface { // net/http is stricter about what is no framing
				return
			}
			if n > whole.heads {
				t.Fatalf("net/http sees request %d, we saw %d heads", n, whole.heads)
			}
			if _, err := io.Copy(io.Discard, request.Body); err != nil {
				return
			}
			left, _ := io.ReadAll(r)
			if len(left) == 0 {
				if n != whole.heads {
					t.Fatalf("net/http sees %d requests, we saw %d", n, whole.heads)
				}
				return
			}
			var rest framing
			rest.scan(p[:good-len(left)])
			if rest.at != atStart || rest.heads != n {
				t.Fatalf("net/http ends request %d at %d, where we are at step %d of request %d", n, good-len(left), rest.at, rest.heads)
			}
			r = bufio.NewReader(bytes.NewReader(left))
		}
	})
}

func BenchmarkFraming(b *testing.B) {
	p := []byte(onWire("GET /api/v4/users/me/teams/members HTTP/1.1\nHost: chat.example.com\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36\n" +
		"Accept: */*\nAccept-Encoding: gzip, deflate, br, zstd\nAccept-Language: en-GB,en;q=0.9\nCookie: MMAUTHTOKEN=abcdefghijklmnopqrstuvwxyz; MMUSERID=abcdefghijklmnopqrstuvwxyz; MMCSRF=abcdefghijklmnopqrstuvwxyz\n" +
		"X-CSRF-Token: abcdefghijklmnopqrstuvwxyz\nX-Requested-With: XMLHttpRequest\nReferer: https://chat.example.com/team/channels/town-square\n\n"))
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	var f framing
	for b.Loop() {
		if f.scan(p) != len(p) {
			b.Fatal(f.fault)
		}
	}
}
