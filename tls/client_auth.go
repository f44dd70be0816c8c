package tls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
)

// The values of [ClientAuth].Mode.
const (
	ClientAuthOff      = "off"      // clients are not asked for a certificate
	ClientAuthOptional = "optional" // one that they have must be good
	ClientAuthRequired = "required" // they must have one
)

// ClientAuth is about certificates of clients (mutual TLS). TURN and ICE have the
// port in common with HTTP and their clients have no certificate, so handshakes
// only ask: it is the HTTP server that admits a client or not, by a [Visitor].
type ClientAuth struct {
	// Mode is "off", "optional" or "required"; empty is "off".
	Mode string `koanf:"mode"`

	// CAFile is a PEM file with the CAs that may vouch for clients. A reload
	// reads it again.
	CAFile string `koanf:"ca_file"`
}

// Why a client is not admitted.
var (
	errNoClientCertificate = errors.New("the client shows no certificate")
	errClientCertificate   = errors.New("the client's certificate is not accepted")
)

// clientCAs vouch for clients. They are replaced as a whole and never modified.
type clientCAs struct {
	mode string
	pem  []byte
	pool *x509.CertPool // nil: clients are not asked
}

func readClientCAs(cfg ClientAuth) (*clientCAs, error) {
	cas := &clientCAs{mode: cfg.Mode}
	switch cfg.Mode {
	case "", ClientAuthOff:
		return cas, nil
	case ClientAuthOptional, ClientAuthRequired:
	default:
		return nil, fmt.Errorf("tls.client_auth.mode %q: want off, optional or required", cfg.Mode)
	}
	var err error
	if cas.pem, err = readPEM(cfg.CAFile); err != nil {
		return nil, fmt.Errorf("read tls.client_auth.ca_file: %w", err)
	}
	cas.pool = x509.NewCertPool()
	if !cas.pool.AppendCertsFromPEM(cas.pem) {
		return nil, fmt.Errorf("tls.client_auth.ca_file %s: no certificate found", cfg.CAFile)
	}
	return cas, nil
}

func (a *clientCAs) same(b *clientCAs) bool { return a.mode == b.mode && bytes.Equal(a.pem, b.pem) }

// judge decides about a client by the certificates it has shown, its own first.
func (a *clientCAs) judge(shown []*x509.Certificate) error {
	switch {
	case a.pool == nil:
		return nil
	case len(shown) == 0 && a.mode == ClientAuthOptional:
		return nil
	case len(shown) == 0:
		return errNoClientCertificate
	}
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	_, err := shown[0].Verify(x509.VerifyOptions{
		Roots: a.pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errClientCertificate, err)
	}
	return nil
}

// ask makes cfg ask clients for a certificate. A session without one is not
// resumed, for it would not be asked for again: who has just been given a
// certificate should get in. base has the keys of the session tickets.
func (a *clientCAs) ask(cfg, base *tls.Config) {
	if a.pool == nil {
		return
	}
	cfg.ClientAuth = tls.RequestClientCert
	cfg.ClientCAs = a.pool // named in the request: browsers offer what fits
	cfg.UnwrapSession = base.DecryptTicket
	cfg.WrapSession = func(s tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		if len(s.PeerCertificates) == 0 {
			return []byte("none"), nil // which DecryptTicket does not know
		}
		return base.EncryptTicket(s, session)
	}
}

// asked reports whether a client that offers these protocols may be asked for a
// certificate: not an ACME CA, nor one that says it wants TURN.
func asked(protocols []string) bool {
	return len(protocols) == 0 || slices.ContainsFunc(protocols, func(p string) bool {
		return p != acmez.ACMETLS1Protocol && p != "stun.turn" && p != "stun.nat-discovery"
	})
}

// A Visitor is the client of one connection, as far as its certificate tells.
// A connection is judged anew when a reload changes who vouches for clients.
type Visitor struct {
	certs *Certificates

	mu  sync.Mutex // guards the following
	by  *clientCAs // who judged; nil: nobody yet
	err error
}

// Visitor returns the client of a new connection, who has not been judged yet.
func (c *Certificates) Visitor() *Visitor { return &Visitor{certs: c} }

// Identify returns the client's certificate, nil if it shows none or was not
// asked, and an error if the client must not be admitted.
func (v *Visitor) Identify(s *ConnectionState) (*x509.Certificate, error) {
	cas := v.certs.current.Load().clients
	if cas.pool == nil {
		return nil, nil
	}
	var shown []*x509.Certificate
	if s != nil {
		shown = s.PeerCertificates
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.by != cas {
		v.by, v.err = cas, cas.judge(shown)
	}
	switch {
	case v.err != nil || len(shown) == 0:
		return nil, v.err
	case time.Now().After(shown[0].NotAfter):
		return nil, fmt.Errorf("%w: expired at %s", errClientCertificate, shown[0].NotAfter.Format(time.RFC3339))
	}
	return shown[0], nil
}
