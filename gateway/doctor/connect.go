package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
)

// maxBody bounds an answer that is read, in bytes.
const maxBody = 1 << 20

// dialTLS connects to HTTPSAddress and shakes hands as Host. The certificate is
// not judged; see the package's comment.
func (t *Target) dialTLS(ctx context.Context, edit func(*tls.Config)) (*tls.Conn, error) {
	c := &tls.Config{ServerName: t.Host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	if edit != nil {
		edit(c)
	}
	conn, err := (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", t.HTTPSAddress)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	return conn.(*tls.Conn), nil
}

// public is an HTTP client that connects to address whatever the URL says, and
// shakes hands as Host. With h1 it speaks HTTP/1.1 only. done closes it.
func (t *Target) public(address string, h1 bool) (client *http.Client, done func()) {
	var d net.Dialer
	tr := &http.Transport{
		Protocols:       new(http.Protocols),
		TLSClientConfig: &tls.Config{ServerName: t.Host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, address)
		},
	}
	tr.Protocols.SetHTTP1(true)
	tr.Protocols.SetHTTP2(!h1)
	return &http.Client{Transport: tr, CheckRedirect: stay}, tr.CloseIdleConnections
}

// direct is an HTTP client for listeners of our own and Mattermost's, which are
// never behind a proxy that the environment names.
func direct() (client *http.Client, done func()) {
	tr := &http.Transport{}
	return &http.Client{Transport: tr, CheckRedirect: stay}, tr.CloseIdleConnections
}

func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// get asks for a URL and reads the answer.
func get(ctx context.Context, c *http.Client, url string) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, err
	}
	return fetch(c, r)
}

// fetch makes the request r and reads the answer.
func fetch(c *http.Client, r *http.Request) (*http.Response, []byte, error) {
	r.Header.Set("User-Agent", "sallyport-doctor")
	resp, err := c.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp, body, err
}

// unreachable says why a connection was not made, or broke. key names the
// configuration's part of it.
func unreachable(err error, address, key string) result {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && !dns.IsTimeout:
		return failed("%s does not resolve", dns.Name).todo("create the DNS record, or use -address to connect to an address before there is one")
	case errors.Is(err, syscall.ECONNREFUSED):
		return failed("nobody listens on %s", address).todo("start Sallyport, or correct %s; `ss -lntup` shows who listens where", key)
	case timeout(err):
		return failed("no answer from %s in time", address).todo("open the port of %s in every firewall on the way; `ss -lntup` shows whether somebody listens", key)
	case errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH):
		return failed("there is no route to %s", address).todo("check the address, and the network of this machine")
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return failed("%s takes the connection and closes it", address).todo("look into Sallyport's log; is it Sallyport that listens on %s?", address)
	}
	return failed("talk to %s: %v", address, reason(err)).todo("look into Sallyport's log; is it Sallyport that listens on %s?", address)
}

// unasked says that a question could not be asked, for a reason that is another
// check's business.
func unasked(err error, address, see string) result {
	r := unreachable(err, address, "")
	r.status = Skip
	return r.todo("see %s", see)
}

func timeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// reason is err without the addresses, which change, and the URL, which the
// text has anyway.
func reason(err error) error {
	for {
		var op *net.OpError
		var inner interface{ Unwrap() error }
		switch {
		case errors.As(err, &op):
			err = op.Err
		case strings.HasPrefix(err.Error(), "Get ") && errors.As(err, &inner) && inner.Unwrap() != nil:
			err = inner.Unwrap()
		default:
			return err
		}
	}
}

// resolve returns the addresses of a host, itself if it is one.
func (t *Target) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	names, err := t.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, n := range names {
		if ip, err := netip.ParseAddr(n); err == nil {
			all = append(all, ip.Unmap())
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	return all, nil
}

// served is the certificates of the site, leaf first.
func (t *Target) served(ctx context.Context) ([]*x509.Certificate, error) {
	conn, err := t.dialTLS(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates, nil
}
