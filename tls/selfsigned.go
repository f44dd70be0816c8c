package tls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	selfSignedLife  = 90 * 24 * time.Hour
	selfSignedRenew = 30 * 24 * time.Hour // before the end
	selfSignedRetry = time.Minute
)

// selfSigned serves a certificate of its own making. Renewals keep the key, so
// that pins and exceptions made for it stay valid until the next start.
type selfSigned struct {
	key     *ecdsa.PrivateKey
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]

	mu    sync.Mutex // guards the following, and making certificates
	names []string
}

func newSelfSigned(names []string, log *slog.Logger) (*selfSigned, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	s := &selfSigned{names: withLocal(names), key: key, log: log}
	return s, s.renew()
}

// withLocal is names and those of this machine.
func withLocal(names []string) []string {
	all := slices.Clone(names)
	for _, n := range []string{"localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return all
}

func (s *selfSigned) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.current.Load(), nil
}

func (s *selfSigned) certificates() []*tls.Certificate { return []*tls.Certificate{s.current.Load()} }

func (s *selfSigned) reload(_ Config, names []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.names
	if s.names = withLocal(names); slices.Equal(s.names, old) {
		return nil
	}
	err := s.make()
	if err != nil {
		s.names = old
	}
	return err
}

func (s *selfSigned) ready() <-chan struct{} { return closedChannel() }

func (s *selfSigned) run(ctx context.Context) {
	for {
		wait := time.Until(s.current.Load().Leaf.NotAfter.Add(-selfSignedRenew))
		select {
		case <-time.After(max(wait, selfSignedRetry)):
		case <-ctx.Done():
			return
		}
		if err := s.renew(); err != nil {
			s.log.Error("cannot renew the self-signed certificate", "err", err)
		}
	}
}

func (s *selfSigned) renew() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.make()
}

// make makes a new certificate for the key and the names. The caller holds mu.
func (s *selfSigned) make() error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return fmt.Errorf("make serial number: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.names[0]},
		NotBefore:    now.Add(-time.Hour), // clients' clocks differ
		NotAfter:     now.Add(selfSignedLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		BasicConstraintsValid: true,
	}
	for _, n := range s.names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.key.Public(), s.key)
	if err != nil {
		return fmt.Errorf("make self-signed certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("parse self-signed certificate: %w", err)
	}
	s.current.Store(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: s.key, Leaf: leaf})
	return nil
}
