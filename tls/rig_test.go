package tls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A rig is a Port on a loopback socket with a server behind each listener that
// says who answered.
type rig struct {
	t     *testing.T
	port  *Port
	certs *Certificates
	addr  string
	reg   *prometheus.Registry
	ca    *pebble // that the certificates come from, if they come from one
	stop  func()  // ends Run and waits for it; the servers are left alone
}

// newRig starts a Port with a self-signed certificate.
func newRig(t *testing.T, o PortOptions) *rig {
	t.Helper()
	certs, err := NewCertificates(Config{Source: SourceSelfSigned}, []string{"chat.example.com"}, CertificateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return startRig(t, listen(t), certs, o)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// startRig starts a Port on ln with certs, which it also runs.
func startRig(t *testing.T, ln net.Listener, certs *Certificates, o PortOptions) *rig {
	t.Helper()
	r := &rig{t: t, certs: certs, addr: ln.Addr().String(), reg: prometheus.NewRegistry()}
	o.Metrics = r.reg
	r.port = NewPort(ln, certs, o)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.port.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	running.Go(func() {
		if err := certs.Run(ctx); err != nil {
			t.Errorf("Certificates.Run: %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(r.stop)
	return r
}

// serve puts a server behind each listener.
func (r *rig) serve() *rig {
	r.t.Helper()
	web := &http.Server{Handler: http.HandlerFunc(whoami), Protocols: new(http.Protocols)}
	web.Protocols.SetHTTP1(true)
	web.Protocols.SetHTTP2(true)
	plain := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, "https://"+req.Host+req.URL.Path, http.StatusPermanentRedirect)
	})}
	var all sync.WaitGroup
	all.Go(func() { _ = web.Serve(r.port.HTTP()) })
	all.Go(func() { _ = plain.Serve(r.port.Plain()) })
	all.Go(func() { echo(r.t, "turn", r.port.TURN()) })
	all.Go(func() { echo(r.t, "ice", r.port.ICE()) })
	r.t.Cleanup(func() {
		r.stop()
		web.Close()
		plain.Close()
		all.Wait()
	})
	return r
}

// whoami tells what net/http knows about the connection, and upgrades on
// request to a stream that repeats what it hears.
func whoami(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer c.Close()
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(c, rw)
		return
	}
	alpn := "no TLS"
	if r.TLS != nil {
		alpn = fmt.Sprintf("%q", r.TLS.NegotiatedProtocol)
	}
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s alpn=%s host=%s body=%d\n", r.Proto, alpn, r.Host, len(body))
}

// echo answers every connection of ln with one line about it, then repeats
// what it receives.
func echo(t *testing.T, who string, ln net.Listener) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := ln.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("accept %s: %v", who, err)
			}
			return
		}
		t.Cleanup(func() { c.Close() })
		_, tcp := c.RemoteAddr().(*net.TCPAddr)
		secure := c.(interface{ Secure() bool }).Secure()
		fmt.Fprintf(c, "%s secure=%t tcp=%t\n", who, secure, tcp)
		go func() { _, _ = io.Copy(c, c) }()
	}
}

// roots is a pool that trusts the rig's certificate.
func (r *rig) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(r.certs.Leaf())
	return pool
}

func (r *rig) clientConfig(alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: r.roots(), ServerName: "chat.example.com", NextProtos: alpn}
}

// dial opens a TCP connection with a deadline for all of it.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	return r.dialFrom("127.0.0.1")
}

func (r *rig) dialFrom(ip string) net.Conn {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := d.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// dialTLS opens a TLS connection offering alpn.
func (r *rig) dialTLS(alpn ...string) *tls.Conn {
	r.t.Helper()
	c := tls.Client(r.dial(), r.clientConfig(alpn...))
	if err := c.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// talk sends b and returns the first n bytes of the answer.
func (r *rig) talk(c net.Conn, b []byte, n int) string {
	r.t.Helper()
	if _, err := c.Write(b); err != nil {
		r.t.Fatal(err)
	}
	answer := make([]byte, n)
	got, err := io.ReadFull(c, answer)
	if err != nil {
		r.t.Fatalf("read answer: %v after %q", err, answer[:got])
	}
	return string(answer)
}

// closed reports whether the server closed c without another word.
func closed(c net.Conn) error {
	b, err := io.ReadAll(c)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return errors.New("still open")
	}
	if len(b) > 0 {
		return fmt.Errorf("it said %q", b)
	}
	return nil
}

// metric returns the value of the counter or gauge with these label values, of
// all ports or, if the last one begins with a colon, of that.
func (r *rig) metric(name string, labels ...string) (sum float64) {
	r.t.Helper()
	port := ""
	if n := len(labels); n > 0 {
		if p, ok := strings.CutPrefix(labels[n-1], ":"); ok {
			port, labels = p, labels[:n-1]
		}
	}
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var have []string
			at := port
			for _, l := range m.GetLabel() { // sorted by name
				if l.GetName() != "port" {
					have = append(have, l.GetValue())
				} else if port != "" {
					at = l.GetValue()
				}
			}
			if at == port && strings.Join(have, ",") == strings.Join(labels, ",") {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}
