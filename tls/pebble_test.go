package tls

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"crypto/x509"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// A pebble is Let's Encrypt's test CA in this process. It reaches every host
// name at 127.0.0.1, HTTP-01 at the first of its ports and TLS-ALPN-01 at the
// second.
type pebble struct {
	config ACME           // how to use it, storage included
	roots  *x509.CertPool // that verify what it issues
	down   atomic.Bool    // drops every connection
	orders atomic.Int64   // new orders it was asked for

	window   atomic.Pointer[[2]time.Time] // in which it suggests to renew; nil: as Pebble does
	replaces atomic.Pointer[string]       // of the latest order
}

type pebbleOptions struct {
	httpPort, tlsPort int
	lifetime          uint64 // of certificates, s; 0 is long
	zone              *zone  // nil: one that has 127.0.0.1 for every name
	account           string // base64url key of the account "kid" that must be bound; "" = none need be
}

func startPebble(t *testing.T, o pebbleOptions) *pebble {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	profiles := map[string]ca.Profile{
		"default":    {Description: "what one gets"},
		"shortlived": {Description: "for renewals", ValidityPeriod: o.lifetime},
	}
	zone := o.zone
	if zone == nil {
		zone = startZone(t)
	}
	authority := ca.New(quiet, store, "", "ecdsa", 0, 1, profiles)
	validation := va.New(quiet, o.httpPort, o.tlsPort, true, zone.addr, store)
	front := wfe.New(quiet, store, validation, authority, []string{"ca.example.com"}, true, o.account != "", 0, 0)
	if o.account != "" {
		if err := store.AddExternalAccountKeyByID("kid", o.account); err != nil {
			t.Fatal(err)
		}
	}

	p := &pebble{roots: x509.NewCertPool()}
	p.roots.AddCert(authority.GetRootCert(0).Cert)
	handler := front.Handler()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.down.Load() {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path == "/order-plz" {
			p.orders.Add(1)
			p.replaces.Store(replacedBy(r))
		}
		if window := p.window.Load(); window != nil && strings.Contains(r.URL.Path, "/renewalInfo/") {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Retry-After", "1")
			_ = json.NewEncoder(w).Encode(map[string]any{"suggestedWindow": map[string]time.Time{"start": window[0], "end": window[1]}})
			return
		}
		handler.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = quiet
	server.StartTLS()
	t.Cleanup(server.Close)

	rootFile := filepath.Join(t.TempDir(), "directory-root.pem")
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(rootFile, root, 0o600); err != nil {
		t.Fatal(err)
	}
	p.config = ACME{
		Email: "admin@example.com", CA: server.URL + "/dir", CARootFile: rootFile,
		Storage: filepath.Join(t.TempDir(), "acme"),
	}
	return p
}

// replacedBy is which certificate the order r says it replaces (RFC 9773 §5).
func replacedBy(r *http.Request) *string {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var signed struct{ Payload string }
	var order struct{ Replaces string }
	_ = json.Unmarshal(body, &signed)
	payload, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
	_ = json.Unmarshal(payload, &order)
	return &order.Replaces
}
