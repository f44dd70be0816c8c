package tls

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dnsCerts are certificates whose names are proved in z, and by nothing else: the
// CA could not reach us.
func dnsCerts(t *testing.T, z *zone, d DNS, s Secrets, names ...string) *rig {
	t.Helper()
	p := startPebble(t, pebbleOptions{tlsPort: 1, httpPort: 1, zone: z})
	d.Resolvers, d.Propagation = []string{z.addr}, time.Minute
	p.config.DNS = d
	certs, err := NewCertificates(Config{Source: SourceACME, ACME: p.config, Names: names}, []string{domain}, CertificateOptions{Secrets: s})
	if err != nil {
		t.Fatal(err)
	}
	certs.now.Load().provider.(*automatic).backoff = func(int, error) time.Duration { return 10 * time.Millisecond }
	r := startRig(t, listen(t), certs, PortOptions{}).serve()
	r.ca = p
	return r
}

func TestDNSByUpdate(t *testing.T) {
	z := startZone(t)
	key := []byte(base64.StdEncoding.EncodeToString([]byte(zoneKey)) + "\n")
	cfg := RFC2136{Server: z.addr, KeyName: "sallyport"}
	r := dnsCerts(t, z, DNS{Provider: DNSProviderRFC2136, RFC2136: cfg}, Secrets{DNSKey: key}, "*.example.com", "*.calls.example.com")
	eventually(t, "certificates", func() bool { return r.certs.Status().Ready })
	for _, name := range []string{domain, "any.example.com", "a.calls.example.com"} {
		c := tls.Client(r.dial(), r.ca.trusting(name))
		if err := c.Handshake(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	eventually(t, "the records are gone", func() bool {
		now, ever := z.records()
		return now == 0 && ever >= 3
	})

	cfg.KeyAlgorithm = "hmac-sha512"
	p, err := newRFC2136(cfg, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.present(t.Context(), "example.com.", "a.example.com.", "value"); err != nil {
		t.Errorf("%s: %v", cfg.KeyAlgorithm, err)
	}
}

// The error says what the server did not like, and nothing of the key.
func TestDNSUpdateIsRefused(t *testing.T) {
	z := startZone(t)
	wrong := base64.StdEncoding.EncodeToString([]byte("another key"))
	r := dnsCerts(t, z, DNS{Provider: DNSProviderRFC2136, RFC2136: RFC2136{Server: z.addr, KeyName: "sallyport"}}, Secrets{DNSKey: []byte(wrong)})
	eventually(t, "told", func() bool {
		return strings.Contains(r.certs.Status().LastError, "update zone example.com. at "+z.addr)
	})
	if s := r.certs.Status().LastError; !strings.Contains(s, "NOTAUTH") || strings.Contains(s, wrong) {
		t.Errorf("last error: %s", s)
	}
}

// acme-dns has a zone of its own, to which a CNAME leads.
func TestDNSByACMEDNS(t *testing.T) {
	z := startZone(t)
	z.mu.Lock()
	z.aliases["_acme-challenge."+domain+"."] = "sub.auth.example.com."
	z.mu.Unlock()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var update struct{ Subdomain, Txt string }
		if r.Header.Get("X-Api-User") != "user" || r.Header.Get("X-Api-Key") != "password" || r.URL.Path != "/update" ||
			json.NewDecoder(r.Body).Decode(&update) != nil || update.Subdomain != "sub" {
			http.Error(w, `{"error": "forbidden"}`, http.StatusUnauthorized)
			return
		}
		z.mu.Lock()
		defer z.mu.Unlock()
		z.add("sub.auth.example.com.", update.Txt)
		fmt.Fprintf(w, `{"txt": %q}`, update.Txt)
	}))
	defer api.Close()
	const account = `{"username": "user", "password": "password", "fulldomain": "sub.auth.example.com", "subdomain": "sub", "allowfrom": []}`
	t.Run("by domain", func(t *testing.T) {
		d := DNS{Provider: DNSProviderACMEDNS, ACMEDNS: ACMEDNS{Server: api.URL + "/"}}
		r := dnsCerts(t, z, d, Secrets{DNSAccount: []byte(`{"` + domain + `": ` + account + `}`)})
		eventually(t, "a certificate", func() bool { return r.certs.Status().Ready })
	})
	t.Run("of all", func(t *testing.T) {
		p, err := newACMEDNS(ACMEDNS{Server: api.URL}, []byte(account))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.present(t.Context(), "", "_acme-challenge.any.example.com.", "value"); err != nil {
			t.Error(err)
		}
	})
	t.Run("wrong", func(t *testing.T) {
		wrong := strings.ReplaceAll(account, `"password"`+`,`, `"guess",`)
		r := dnsCerts(t, z, DNS{Provider: DNSProviderACMEDNS, ACMEDNS: ACMEDNS{Server: api.URL}}, Secrets{DNSAccount: []byte(wrong)})
		eventually(t, "told", func() bool { return strings.Contains(r.certs.Status().LastError, "answers 401 Unauthorized") })
		if s := r.certs.Status().LastError; strings.Contains(s, "guess") {
			t.Errorf("last error: %s", s)
		}
	})
}

func TestDNSByProgram(t *testing.T) {
	z := startZone(t)
	// The program writes what it is told to a file, which the zone reads.
	dir := t.TempDir()
	program := filepath.Join(dir, "hook")
	write(t, program, []byte(`#!/bin/sh
[ "$1" = extra ] || { echo "unexpected: $*" >&2; exit 1; }
case "$2" in
present) printf '%s %s' "$3" "$4" >"`+dir+`/record" ;;
cleanup) printf '%s %s' "$3" "$4" >"`+dir+`/gone" ;;
esac
`))
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	follow(t, z, filepath.Join(dir, "record"))
	r := dnsCerts(t, z, DNS{Provider: DNSProviderExec, Exec: []string{program, "extra"}}, Secrets{})
	eventually(t, "a certificate", func() bool { return r.certs.Status().Ready })
	eventually(t, "cleaned up what it made", func() bool {
		made, _ := os.ReadFile(filepath.Join(dir, "record"))
		gone, _ := os.ReadFile(filepath.Join(dir, "gone"))
		return len(made) > 0 && string(made) == string(gone) && strings.HasPrefix(string(made), "_acme-challenge."+domain+". ")
	})
}

// follow makes the record that stands in file, once it does.
func follow(t *testing.T, z *zone, file string) {
	stop, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-done })
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			text, _ := os.ReadFile(file)
			if name, value, ok := strings.Cut(string(text), " "); ok {
				z.mu.Lock()
				z.txt[name] = []string{value}
				z.mu.Unlock()
			}
		}
	}()
}

// A program that hangs, or never stops talking, costs a bounded time and memory.
func TestProgramIsBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := execHook{"/bin/sh", "-c", "yes & yes; true"}.present(ctx, "", "name.", "value")
	if err == nil || !strings.Contains(err.Error(), "deadline exceeded") || len(err.Error()) > 4*execOutput+200 {
		t.Errorf("hook that never ends: %v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	err = execHook{"/bin/sh", "-c", "echo no such zone >&2; exit 3"}.present(t.Context(), "", "name.", "value")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such zone") {
		t.Errorf("hook that fails: %v", err)
	}
}

func TestDNSSecretsAreChecked(t *testing.T) {
	for name, tt := range map[string]struct {
		d DNS
		s Secrets
	}{
		"key":              {DNS{Provider: DNSProviderRFC2136}, Secrets{DNSKey: []byte("s3cr3t!")}},
		"no key":           {DNS{Provider: DNSProviderRFC2136}, Secrets{}},
		"account":          {DNS{Provider: DNSProviderACMEDNS}, Secrets{DNSAccount: []byte("s3cr3t")}},
		"half an account":  {DNS{Provider: DNSProviderACMEDNS}, Secrets{DNSAccount: []byte(`{"username": "a", "password": "s3cr3t"}`)}},
		"unknown provider": {DNS{Provider: "route66"}, Secrets{}},
		"no program":       {DNS{Provider: DNSProviderExec}, Secrets{}},
	} {
		if _, err := newDNSProvider(tt.d, tt.s); err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
