package tls

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// headerV2 builds a PROXY header of version 2.
func headerV2(command, family byte, body ...[]byte) []byte {
	all := bytes.Join(body, nil)
	b := append([]byte(proxyV2), command, family)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(all))), all...)
}

var (
	pairV4 = unhex("c0000201 c6336401 dc04 01bb")
	pairV6 = append(append(netip.MustParseAddr("2001:db8::1").AsSlice(), netip.MustParseAddr("2001:db8::2").AsSlice()...), unhex("dc04 01bb")...)
	tlvs   = unhex("04 0003 aabbcc 03 0004 00000000 e0 0001 ff")
)

// What the good headers name.
const (
	proxyV4Client = "192.0.2.1:56324"
	proxyV6Client = "[2001:db8::1]:56324"
)

// proxyHeaders are good and bad ones.
var proxyHeaders = map[string]struct {
	in   []byte
	want string // the client; "" = none, "!" = refused
}{
	"v1 TCP4":             {[]byte("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"), proxyV4Client},
	"v1 TCP6":             {[]byte("PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n"), proxyV6Client},
	"v1 mapped":           {[]byte("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 56324 443\r\n"), proxyV4Client},
	"v1 UNKNOWN":          {[]byte("PROXY UNKNOWN\r\n"), ""},
	"v1 UNKNOWN and more": {[]byte("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"), ""},
	"v1 longest":          {[]byte("PROXY UNKNOWN " + strings.Repeat("f", proxyV1Max-16) + "\r\n"), ""},
	"v1 too long":         {[]byte("PROXY UNKNOWN " + strings.Repeat("f", proxyV1Max-15) + "\r\n"), "!"},
	"v1 without CR":       {[]byte("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n"), "!"},
	"v1 other family":     {[]byte("PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n"), "!"},
	"v1 mixed families":   {[]byte("PROXY TCP4 192.0.2.1 2001:db8::2 56324 443\r\n"), "!"},
	"v1 zone":             {[]byte("PROXY TCP6 fe80::1%lo 2001:db8::2 56324 443\r\n"), "!"},
	"v1 port 65536":       {[]byte("PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n"), "!"},
	"v1 port 0443":        {[]byte("PROXY TCP4 192.0.2.1 198.51.100.1 56324 0443\r\n"), "!"},
	"v1 UDP4":             {[]byte("PROXY UDP4 192.0.2.1 198.51.100.1 56324 443\r\n"), "!"},
	"v1 too few":          {[]byte("PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n"), "!"},
	"v1 two spaces":       {[]byte("PROXY  TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"), "!"},
	"v1 nothing":          {[]byte("PROXY \r\n"), "!"},
	"v1 cut off":          {[]byte("PROXY TCP4 192.0.2.1"), "!"},
	"v2 TCP4":             {headerV2(proxyOther, proxyTCP4, pairV4), proxyV4Client},
	"v2 TCP6":             {headerV2(proxyOther, proxyTCP6, pairV6), proxyV6Client},
	"v2 additions":        {headerV2(proxyOther, proxyTCP4, pairV4, tlvs), proxyV4Client},
	"v2 much added":       {headerV2(proxyOther, proxyTCP4, pairV4, make([]byte, proxyV2Max-len(pairV4))), proxyV4Client},
	"v2 too much added":   {headerV2(proxyOther, proxyTCP4, pairV4, make([]byte, proxyV2Max-len(pairV4)+1)), "!"},
	"v2 LOCAL":            {headerV2(proxyLocal, 0), ""},
	"v2 LOCAL TCP4":       {headerV2(proxyLocal, proxyTCP4, pairV4, tlvs), ""},
	"v2 UNSPEC":           {headerV2(proxyOther, 0, tlvs), ""},
	"v2 Unix":             {headerV2(proxyOther, 0x31, make([]byte, 216)), ""},
	"v2 UDP":              {headerV2(proxyOther, 0x12, pairV4), ""},
	"v2 short addresses":  {headerV2(proxyOther, proxyTCP6, pairV4), "!"},
	"v2 no addresses":     {headerV2(proxyOther, proxyTCP4), "!"},
	"v2 other command":    {headerV2(0x22, proxyTCP4, pairV4), "!"},
	"v2 other version":    {headerV2(0x11, proxyTCP4, pairV4), "!"},
	"v2 other signature":  {append([]byte("\r\n\r\n\x00\r\nQUIT\r\x21\x11\x00\x0c"), pairV4...), "!"},
	"v2 cut off":          {headerV2(proxyOther, proxyTCP4, pairV4)[:20], "!"},
}

func TestReadProxy(t *testing.T) {
	for name, tt := range proxyHeaders {
		t.Run(name, func(t *testing.T) {
			for _, slow := range []bool{false, true} {
				var r io.Reader = bytes.NewReader(append(bytes.Clone(tt.in), "then"...))
				if strings.Contains(name, "cut off") {
					r = bytes.NewReader(tt.in)
				}
				head := make([]byte, proxyV2Mark)
				if _, err := io.ReadFull(r, head); err != nil {
					t.Fatal(err)
				}
				if slow {
					r = iotest.OneByteReader(r)
				}
				client, rest, err := readProxy(r, head)
				got := "!"
				if err == nil {
					if got = ""; client.IsValid() {
						got = client.String()
					}
					if after, _ := io.ReadAll(r); string(rest)+string(after) != "then" {
						t.Errorf("left %q and %q", rest, after)
					}
				}
				if got != tt.want {
					t.Errorf("client %q (%v), want %q", got, err, tt.want)
				}
			}
		})
	}
}

// FuzzProxyHeader: a header is read to its end and no further, within bounds.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n"))
	f.Add(headerV2(proxyOther, proxyTCP4, pairV4, tlvs))
	f.Add(headerV2(proxyOther, proxyTCP6, pairV6))
	f.Add(headerV2(proxyLocal, 0))
	f.Fuzz(func(t *testing.T, in []byte) {
		if k, _ := feed(classifyOuter, in); k != kindProxy {
			return
		}
		r := bytes.NewReader(in[proxyV2Mark-1:])
		client, rest, err := readProxy(r, bytes.Clone(in[:proxyV2Mark-1]))
		if err != nil {
			return
		}
		left := len(rest) + r.Len()
		used := len(in) - left
		switch {
		case !bytes.HasSuffix(in[:len(in)-r.Len()], rest):
			t.Fatalf("rest %q is not what follows", rest)
		case client.Addr().Is4In6() || client.Addr().Zone() != "":
			t.Fatalf("client %v", client)
		case in[0] == 'P' && (used > proxyV1Max || !bytes.HasSuffix(in[:used], []byte("\r\n"))):
			t.Fatalf("took %d bytes of %q", used, in)
		case in[0] != 'P' && used != 16+int(binary.BigEndian.Uint16(in[14:])):
			t.Fatalf("took %d bytes of % x", used, in)
		}
	})
}

// tellRemote serves HTTPS, plain HTTP, TURN and ICE-TCP; all answer with the client's address.
func (r *rig) tellRemote() {
	web := &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { fmt.Fprintf(w, "<%s>", req.RemoteAddr) }),
		Protocols: new(http.Protocols),
	}
	web.Protocols.SetHTTP1(true)
	web.Protocols.SetHTTP2(true)
	go func() { _ = web.Serve(r.port.HTTP()) }()
	go func() { _ = web.Serve(r.port.Plain()) }()
	for _, l := range []net.Listener{r.port.TURN(), r.port.ICE()} {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				r.t.Cleanup(func() { c.Close() })
				_, tcp := c.RemoteAddr().(*net.TCPAddr)
				_, local := c.LocalAddr().(*net.TCPAddr)
				fmt.Fprintf(c, "<%s> tcp=%t", c.RemoteAddr(), tcp && local && c.LocalAddr().String() == r.addr)
			}
		}()
	}
	r.t.Cleanup(func() { web.Close() })
}

func trusting(o PortOptions) PortOptions {
	o.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32"), netip.MustParsePrefix("10.9.0.0/16")}
	return o
}

// A header of either version comes before every protocol, in one segment with
// it or byte by byte, and what follows sees the address it names.
func TestProxyHeader(t *testing.T) {
	r := newRig(t, trusting(PortOptions{}))
	r.tellRemote()
	for name, header := range map[string][]byte{
		"v1": []byte("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"),
		"v2": headerV2(proxyOther, proxyTCP4, pairV4, tlvs),
	} {
		const want = "<192.0.2.1:56324>"
		t.Run(name, func(t *testing.T) {
			if got := r.talk(r.dialFrom("127.0.0.2"), append(bytes.Clone(header), stun...), len(want)+9); got != want+" tcp=true" {
				t.Errorf("TURN/TCP: %q", got)
			}
			if got := r.talk(r.dialFrom("127.0.0.2"), append(bytes.Clone(header), framed...), len(want)+9); got != want+" tcp=true" {
				t.Errorf("ICE-TCP: %q", got)
			}
			c := r.dialFrom("127.0.0.2")
			r.write(c, append(bytes.Clone(header), request...))
			if got, _ := io.ReadAll(c); !strings.HasSuffix(string(got), "\r\n\r\n"+want) {
				t.Errorf("plain HTTP: %q", got)
			}
			c = r.dialFrom("127.0.0.2")
			for i := range header {
				r.write(c, header[i:i+1])
			}
			if got := r.talk(c, stun, len(want)); got != want {
				t.Errorf("TURN/TCP in single bytes: %q", got)
			}
			c = r.dialFrom("127.0.0.2")
			r.write(c, header)
			relay := tls.Client(c, r.clientConfig())
			if got := r.talk(relay, stun, len(want)); got != want {
				t.Errorf("TURN/TLS: %q", got)
			}
			for _, alpn := range []string{"h2", "http/1.1"} {
				if got := r.getBehind(header, alpn); got != want {
					t.Errorf("%s: %q", alpn, got)
				}
			}
		})
	}
	for name, header := range map[string][]byte{
		"LOCAL": headerV2(proxyLocal, proxyTCP4, pairV4), "UNKNOWN": []byte("PROXY UNKNOWN\r\n"), "none": nil,
	} {
		if got := r.talk(r.dialFrom("127.0.0.2"), append(bytes.Clone(header), stun...), 11); got != "<127.0.0.2:" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func (r *rig) write(c net.Conn, b []byte) {
	r.t.Helper()
	if _, err := c.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// getBehind asks for a page on a connection that begins with a header.
func (r *rig) getBehind(header []byte, alpn string) string {
	r.t.Helper()
	transport := &http.Transport{
		TLSClientConfig: r.clientConfig(alpn), ForceAttemptHTTP2: alpn == "h2", DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			c := r.dialFrom("127.0.0.2")
			_, err := c.Write(header)
			return c, err
		},
	}
	resp, err := (&http.Client{Transport: transport}).Get("https://chat.example.com/")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(body)
}

// What nobody vouches for ends the connection before anything is served.
func TestProxyHeaderIsRefused(t *testing.T) {
	var log bytes.Buffer // read when every connection is over
	r := newRig(t, trusting(PortOptions{FirstBytes: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))}))
	r.tellRemote()
	good := headerV2(proxyOther, proxyTCP4, pairV4)
	for name, tt := range map[string]struct {
		from string
		b    []byte
	}{
		"v2 of a stranger":   {"127.0.0.1", good},
		"v1 of a stranger":   {"127.0.0.1", []byte("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n")},
		"malformed":          {"127.0.0.2", []byte("PROXY TCP4 192.0.2.1\r\n")},
		"two headers":        {"127.0.0.2", append(bytes.Clone(good), good...)},
		"half a header":      {"127.0.0.2", good[:20]},
		"half a header v1":   {"127.0.0.2", []byte("PROXY TCP4 192")},
		"a header, no more":  {"127.0.0.2", good},
		"endless additions":  {"127.0.0.2", append([]byte(proxyV2), 0x21, 0x11, 0xFF, 0xFF)},
		"endless version 1":  {"127.0.0.2", []byte(proxyV1 + strings.Repeat("f", 300))},
		"a stranger's inner": {"127.0.0.1", append([]byte(proxyV2), stun...)},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dialFrom(tt.from)
			_, _ = c.Write(tt.b)
			if name != "a header, no more" && name[:4] != "half" {
				_, _ = c.Write(stun) // the server may be faster
			}
			if b, err := io.ReadAll(c); len(b) > 0 || isTimeout(err) {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
	eventually(t, "nothing stays open", func() bool { return r.port.open.size() == 0 && r.port.pending.size() == 0 })
	if n := r.metric("sallyport_demux_connections_total", "plain", "proxy_refused"); n < 5 {
		t.Errorf("%v refused headers counted", n)
	}
	if n := strings.Count(log.String(), `msg="PROXY header refused" remote=127.0.0.1`); n != 1 {
		t.Errorf("strangers' headers are logged %d times:\n%s", n, &log)
	}
}

// Limits by address count whom the header names, not who brought it.
func TestProxyHeaderCounts(t *testing.T) {
	r := newRig(t, trusting(PortOptions{PerAddress: 2, OpenPerAddress: 3})).serve()
	behind := func(client string) net.Conn {
		c := r.dialFrom("127.0.0.2")
		r.write(c, []byte("PROXY TCP4 "+client+" 198.51.100.1 1000 443\r\n"))
		return c
	}
	var first []net.Conn
	for range 2 {
		first = append(first, behind("192.0.2.1"))
	}
	pending := func(a string) int {
		m := r.port.pending
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.byAddr[netip.MustParseAddr(a)]
	}
	eventually(t, "two are pending", func() bool { return pending("192.0.2.1") == 2 })
	if err := closed(behind("192.0.2.1")); err != nil {
		t.Errorf("third of one client: %v", err)
	}
	other := behind("192.0.2.2")
	r.talk(other, stun, 46)
	eventually(t, "the refused one is counted", func() bool { return r.metric("sallyport_demux_refused_total", "address") == 1 })
	for _, c := range first {
		r.talk(c, stun, 46)
	}
	r.talk(behind("192.0.2.1"), stun, 46)
	if err := closed(behind("192.0.2.1")); err != nil {
		t.Errorf("fourth open one of a client: %v", err)
	}
	behind("10.9.0.1") // a balancer behind a balancer has no limit either
	behind("10.9.0.1")
	r.talk(behind("10.9.0.1"), stun, 46)
}
