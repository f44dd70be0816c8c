package tls

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// The values of [Config.Source].
const (
	SourceACME       = "acme"       // obtained and renewed from an ACME CA
	SourceFiles      = "files"      // read from disk, reloaded when they change
	SourceSelfSigned = "selfsigned" // made at start, for the demo and for tests
)

// Config is the section "tls" of the configuration file.
type Config struct {
	// Source says where the certificate comes from: "acme", "files" or
	// "selfsigned". After a change the old certificate answers until there is
	// one of the new source.
	Source string `koanf:"source"`

	// CertFile is the PEM file with the certificate and its chain, leaf first.
	// Source files only. It is read again within seconds of a change, also when
	// it was replaced by rename or through a symbolic link.
	CertFile string `koanf:"cert_file"`

	// KeyFile is the PEM file with the private key of CertFile.
	KeyFile string `koanf:"key_file"`

	// ACME configures source acme.
	ACME ACME `koanf:"acme"`

	// Names are further host names in the certificate, beside the domain; with
	// source acme each gets a certificate of its own. A reload obtains those that
	// are new and lets go of those that are gone.
	Names []string `koanf:"names"`

	// MinVersion is the oldest TLS version spoken, "1.2" or "1.3"; empty is
	// "1.2".
	MinVersion string `koanf:"min_version"`

	// ClientAuth asks clients for certificates.
	ClientAuth ClientAuth `koanf:"client_auth"`

	// HSTS is the max-age of the Strict-Transport-Security header; 0 sends
	// none. The gateway adds the header, this package does not use it.
	HSTS time.Duration `koanf:"hsts"`
}

// ACME says how to obtain certificates by RFC 8555.
type ACME struct {
	// Email is where the CA sends warnings; it may be empty.
	Email string `koanf:"email"`

	// CA is "letsencrypt", "letsencrypt-staging" or the https:// URL of a
	// directory; empty is "letsencrypt".
	CA string `koanf:"ca"`

	// CARootFile is a PEM file with the roots that vouch for the directory's
	// own certificate; empty means the system's. A private CA needs it.
	CARootFile string `koanf:"ca_root_file"`

	// Profile is a certificate profile the CA offers, such as "shortlived";
	// empty leaves the choice to the CA. For an IP address Let's Encrypt offers
	// none but that one, which is what empty then means.
	Profile string `koanf:"profile"`

	// KeyType is the kind of key that new certificates get: "p256", "p384",
	// "rsa2048" or "rsa4096"; empty is "p256".
	KeyType string `koanf:"key_type"`

	// DNS proves by a DNS record that names are ours.
	DNS DNS `koanf:"dns"`

	// EAB binds our account at the CA to one that exists there.
	EAB EAB `koanf:"eab"`

	// Storage is the directory for the account, keys and certificates. It must
	// survive restarts: the CA limits how often it issues.
	Storage string `koanf:"storage"`
}

// EAB is an external account binding (RFC 8555 section 7.3.4), which some CAs
// demand. The zero value is none.
type EAB struct {
	// KeyID is what the CA calls the key.
	KeyID string `koanf:"key_id"`

	// HMACKeyFile is the file with the key, in base64 as the CA gives it.
	HMACKeyFile string `koanf:"hmac_key_file"`
}

// DecodeAccountKey reads the content of an EAB.HMACKeyFile. Some CAs give the key
// in the one alphabet of base64, some in the other.
func DecodeAccountKey(text []byte) ([]byte, error) {
	plain := strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(strings.TrimSpace(string(text)))
	key, err := base64.RawURLEncoding.DecodeString(plain)
	if err != nil || len(key) == 0 {
		return nil, errors.New("the key is not base64") // base64's own error would quote it
	}
	return key, nil
}

// KeyTypes are the values of [ACME].KeyType.
var KeyTypes = []string{"p256", "p384", "rsa2048", "rsa4096"}

// Public reports whether the CA is Let's Encrypt, or its staging CA.
func (a ACME) Public() bool {
	return a.CA == "" || a.CA == "letsencrypt" || a.CA == "letsencrypt-staging"
}

// profile is the certificate profile to ask for.
func (a ACME) profile(names []string) string {
	isIP := func(name string) bool { _, err := netip.ParseAddr(name); return err == nil }
	if a.Profile == "" && a.Public() && slices.ContainsFunc(names, isIP) {
		return "shortlived"
	}
	return a.Profile
}

// directory returns the URLs of the CA's directory and of the one that tries
// validations out after a failure; the second is empty for a private CA.
func (a ACME) directory() (ca, trial string, err error) {
	switch a.CA {
	case "", "letsencrypt":
		return certmagic.LetsEncryptProductionCA, certmagic.LetsEncryptStagingCA, nil
	case "letsencrypt-staging":
		return certmagic.LetsEncryptStagingCA, "", nil
	}
	u, err := url.Parse(a.CA)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return "", "", fmt.Errorf("tls.acme.ca %q: want letsencrypt, letsencrypt-staging or an https:// URL", a.CA)
	}
	return a.CA, "", nil
}

// parseVersion returns the crypto/tls number of a TLS version.
func parseVersion(s string) (uint16, error) {
	switch s {
	case "", "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf(`tls.min_version %q: want "1.2" or "1.3"`, s)
}
