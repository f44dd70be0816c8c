package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// pingPath is Mattermost's own health check, which asks for no login.
const pingPath = "/api/v4/system/ping"

// checkUpstream asks every Mattermost node directly.
func checkUpstream(ctx context.Context, t *Target) result {
	if len(t.Upstream) == 0 {
		return skipped("no upstream is known").todo("set upstream")
	}
	faults := make(chan result, len(t.Upstream))
	for _, base := range t.Upstream {
		go func() { faults <- t.pingUpstream(ctx, base) }()
	}
	var last result
	up := 0
	for range t.Upstream {
		if r := <-faults; r.status == Pass {
			up++
		} else {
			last = r
		}
	}
	switch {
	case up == len(t.Upstream):
		return passed("%s answers the ping", strings.Join(t.Upstream, ", "))
	case up > 0:
		return warned("%d of %d nodes answer; %s", up, len(t.Upstream), last.text).todo("%s", last.fix)
	}
	return last
}

func (t *Target) pingUpstream(ctx context.Context, base string) result {
	c, at, done := t.node(base)
	defer done()
	began := time.Now()
	resp, body, err := get(ctx, c, at+t.PingPath)
	took := time.Since(began)
	switch {
	case strings.HasPrefix(base, "http://") && (err != nil || resp.StatusCode == http.StatusBadRequest) && speaksTLS(ctx, base, body):
		return failed("%s speaks TLS, but upstream says http", base).
			todo("write upstream: https%s, or clear ServiceSettings.ConnectionSecurity in Mattermost", strings.TrimPrefix(base, "http"))
	case err != nil:
		return unreachableUpstream(err, base)
	}
	r := t.judgePing(resp, body, base)
	if r.status == Pass && took > pingLate {
		return warned("%s answers the ping late, after %s", base, took.Round(100*time.Millisecond)).
			todo("above %s Sallyport prefers other nodes: look at the load of Mattermost and its database", pingLate)
	}
	return r
}

// unreachableUpstream says why there was no answer from a node.
func unreachableUpstream(err error, base string) result {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return failed("%s does not speak TLS, but upstream says https", base).
			todo("write upstream: http%s, or set ServiceSettings.ConnectionSecurity in Mattermost to TLS", strings.TrimPrefix(base, "https"))
	case errors.As(err, &authority):
		return failed("the certificate of %s is from a CA that is not trusted here", base).todo("name the CA's certificate in proxy.upstream_ca_file")
	case errors.As(err, &name):
		return failed("the certificate of %s is for another name: %v", base, name).todo("write the name that it is for into proxy.upstream_server_name, or into upstream")
	case errors.As(err, &invalid):
		return failed("the certificate of %s is not valid: %v", base, invalid).todo("renew it")
	case strings.HasPrefix(base, "unix:") && errors.Is(err, fs.ErrNotExist):
		return failed("there is no socket at %s", base).todo("start what listens there, or correct upstream")
	case strings.HasPrefix(base, "unix:") && errors.Is(err, fs.ErrPermission):
		return failed("this user may not connect to %s", base).todo("let the user of Sallyport connect, and run the doctor as that user or root")
	}
	return unreachable(err, base, "upstream").
		todo("start Mattermost, or correct upstream; it must name what ServiceSettings.ListenAddress of Mattermost says")
}

// node is an HTTP client for the upstream at base, and the URL to ask there. done
// closes it.
func (t *Target) node(base string) (client *http.Client, url string, done func()) {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: t.UpstreamRoots, ServerName: t.UpstreamName, MinVersion: tls.VersionTLS12}}
	url = strings.TrimSuffix(base, "/")
	if path, ok := strings.CutPrefix(base, "unix:"); ok {
		url = "http://" + t.Host
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	}
	return &http.Client{Transport: tr, CheckRedirect: stay}, url, tr.CloseIdleConnections
}

// speaksTLS reports whether base, an http:// URL, leads to a server that wants TLS:
// it may say so in its answer, or shake hands.
func speaksTLS(ctx context.Context, base string, body []byte) bool {
	if bytes.Contains(body, []byte("HTTP request to an HTTPS server")) || bytes.Contains(body, []byte("request was sent to HTTPS port")) {
		return true // Mattermost; nginx
	}
	u, err := url.Parse(base)
	if err != nil || u.Port() == "" {
		return false
	}
	d := tls.Dialer{Config: &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// judgePing looks whether it is Mattermost that answered, and well.
func (t *Target) judgePing(resp *http.Response, body []byte, who string) result {
	var ping struct{ Status string }
	switch err := json.Unmarshal(body, &ping); {
	case resp.Header.Get(rejectReason) != "":
		return shutOut(resp)
	case resp.StatusCode/100 == 3:
		return failed("%s sends to %q", who, resp.Header.Get("Location")).todo("take away the redirect in Mattermost (ServiceSettings.Forward80To443), or correct upstream")
	case resp.StatusCode == http.StatusOK && !strings.HasSuffix(t.PingPath, pingPath): // its form is not known
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusOK && (err != nil || ping.Status == ""):
		return failed("%s answers, but not as Mattermost does", who).todo("correct upstream: it must lead to Mattermost")
	case resp.StatusCode != http.StatusOK:
		return failed("%s answers %s", who, resp.Status).todo("look into Mattermost's log")
	case ping.Status != "OK":
		return failed("%s says %q", who, ping.Status).todo("look into Mattermost's log")
	}
	return passed("%s answers the ping", who)
}
