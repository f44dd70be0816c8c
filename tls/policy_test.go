package tls

import (
	"context"
	"crypto/tls"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whoever asks for a name that is not ours, or for none, gets our certificate:
// TURN clients often send none, and browsers then tell the user which name it is
// for. A handshake is never refused for its name.
func TestNamesThatAreNotOurs(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1})
	automatic, _ := acmeCerts(t, p, 0, portOf(ln.Addr()), "calls.example.com")
	d := newDisk(t, domain)
	fixed, _ := newFilesCerts(t, d)
	own, err := NewCertificates(Config{Source: SourceSelfSigned}, []string{domain}, CertificateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*rig{
		"acme": startRig(t, ln, automatic, PortOptions{}), "files": startRig(t, listen(t), fixed, PortOptions{}), "selfsigned": startRig(t, listen(t), own, PortOptions{}),
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			eventually(t, "a certificate", func() bool { return len(r.certs.Status().Covered) > 0 && r.certs.Status().Ready })
			for _, wanted := range []string{"", "unknown.example.org", "CHAT.example.com", "127.0.0.1", strings.Repeat("a.", 120) + "example.com"} {
				c := tls.Client(r.dial(), &tls.Config{InsecureSkipVerify: true, ServerName: wanted})
				if err := c.Handshake(); err != nil {
					t.Errorf("%q: %v", wanted, err)
					continue
				}
				if err := c.ConnectionState().PeerCertificates[0].VerifyHostname(domain); err != nil {
					t.Errorf("%q: %v", wanted, err)
				}
			}
		})
	}
}

// What OpenSSL can be talked into, we refuse.
func TestPolicyWithOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("NOT TESTED: openssl is not installed")
	}
	r := newRig(t, PortOptions{}).serve()
	for _, tt := range []struct{ want, args string }{
		{"Protocol  : TLSv1.2", "-tls1_2"},
		{"New, TLSv1.3", "-tls1_3"},
		{"refused", "-tls1 -cipher DEFAULT@SECLEVEL=0"},
		{"refused", "-tls1_1 -cipher DEFAULT@SECLEVEL=0"},
		{"refused", "-tls1_2 -cipher AES128-SHA:AES256-SHA:AES128-GCM-SHA256:AES256-GCM-SHA384@SECLEVEL=0"},                  // no forward secrecy
		{"refused", "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA384@SECLEVEL=0"}, // CBC
		{"refused", "-tls1_2 -cipher DHE:PSK:aNULL:eNULL@SECLEVEL=0"},
		{"Cipher is ECDHE-ECDSA-AES128-GCM-SHA256", "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256"},
		{"Cipher is ECDHE-ECDSA-AES256-GCM-SHA384", "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384"},
		{"Cipher is ECDHE-ECDSA-CHACHA20-POLY1305", "-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305"},
		{"Secure Renegotiation IS supported", "-tls1_2"},
		{"Compression: NONE", "-tls1_2 -comp"},
		{"Max Early Data: 0", "-tls1_3 -ign_eof"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			args := append([]string{"s_client", "-connect", r.addr}, strings.Fields(strings.ReplaceAll(tt.args, "-ign_eof", ""))...)
			out, err := exec.CommandContext(ctx, "openssl", args...).CombinedOutput()
			if text := string(out); tt.want == "refused" {
				if err == nil || !strings.Contains(text, "Cipher is (NONE)") || !strings.Contains(text, "alert") {
					t.Errorf("not refused by us: %v: %s", err, text)
				}
			} else if !strings.Contains(text, tt.want) {
				t.Errorf("want %q in: %s (%v)", tt.want, text, err)
			}
		})
	}
}

// What is shown of certificates is shown for each name, and goes with it.
func TestExpiryOfEachName(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	r.talk(r.dialTLS(), stun, 46)
	if got := r.metric("sallyport_tls_sessions_total", "false", "1.3"); got != 1 {
		t.Errorf("%v sessions counted", got)
	}
	d := newDisk(t, domain)
	cfg := d.config()
	cfg.Names = []string{"missing.example.com"}
	reg := r.reg
	certs, err := NewCertificates(cfg, []string{domain}, CertificateOptions{Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	end := certs.Leaf().NotAfter
	want := []Expiry{{domain, end}, {"missing.example.com", time.Time{}}}
	if got := certs.Status().Expiry; !slices.Equal(got, want) {
		t.Errorf("expiry: %v, want %v", got, want)
	}
	for _, e := range want {
		if got := r.metric("sallyport_tls_name_not_after_seconds", e.Name); got != seconds(e.NotAfter) {
			t.Errorf("%s: %v, want %v", e.Name, got, seconds(e.NotAfter))
		}
	}
	cfg.Names = nil
	if err := certs.Reload(cfg, Secrets{}); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "sallyport_tls_name_not_after_seconds" && len(f.GetMetric()) != 1 {
			t.Errorf("%d names are shown, want 1", len(f.GetMetric()))
		}
	}
}
