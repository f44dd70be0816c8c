package dtlskeys

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/pion/dtls/v2"
)

// lengths are those of AEAD_AES_128_GCM, AEAD_AES_256_GCM and AES128_CM.
func lengths(profile uint16) (key, salt int) {
	switch profile {
	case 1:
		return 16, 14
	case 7:
		return 16, 12
	case 8:
		return 32, 12
	}
	return 0, 0
}

// A tap shows what passes to Secrets.
type tap struct {
	net.Conn
	secrets *Secrets
}

func (c tap) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.secrets.Look(p[:n], false)
	return n, err
}

func (c tap) Write(p []byte) (int, error) {
	c.secrets.Look(p, true)
	return c.Conn.Write(p)
}

func certificates(t testing.TB) (ec, rs tls.Certificate) {
	t.Helper()
	make := func(key interface{}, public any) tls.Certificate {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		raw, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return make(e, &e.PublicKey), make(r, &r.PublicKey)
}

// A handshake is one between two stock DTLS stacks, with ours looking on at both
// ends.
type handshake struct {
	client, server           dtls.Config
	clientSecrets, toServer  Secrets
	clientState, serverState dtls.State
}

func (h *handshake) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, b := net.Pipe()
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	h.client.KeyLogWriter, h.server.KeyLogWriter = &h.clientSecrets, &h.toServer
	h.client.InsecureSkipVerify, h.server.InsecureSkipVerify = true, true
	failed := make(chan error, 1)
	go func() {
		c, err := dtls.ServerWithContext(ctx, tap{b, &h.toServer}, &h.server)
		if err == nil {
			h.serverState = c.ConnectionState()
		}
		failed <- err
	}()
	c, err := dtls.ClientWithContext(ctx, tap{a, &h.clientSecrets}, &h.client)
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	h.clientState = c.ConnectionState()
	if err := <-failed; err != nil {
		t.Fatalf("server: %v", err)
	}
}

// TestAsTheStackSays: both ends arrive at what the DTLS stack itself exports, with
// every suite and profile there is.
func TestAsTheStackSays(t *testing.T) {
	ec, rs := certificates(t)
	suites := map[dtls.CipherSuiteID]tls.Certificate{
		dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: ec,
		dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: ec,
		dtls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA:    ec,
		dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM:        ec,
		dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8:      ec,
		dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:   rs,
		dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:   rs,
		dtls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA:      rs,
	}
	for suite, certificate := range suites {
		for _, profile := range []dtls.SRTPProtectionProfile{dtls.SRTP_AES128_CM_HMAC_SHA1_80, dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM} {
			t.Run(fmt.Sprintf("%v/%d", suite, profile), func(t *testing.T) {
				var h handshake
				h.client = dtls.Config{CipherSuites: []dtls.CipherSuiteID{suite}, SRTPProtectionProfiles: []dtls.SRTPProtectionProfile{profile}}
				h.server = h.client
				h.server.Certificates = []tls.Certificate{certificate}
				h.run(t)
				h.verify(t, &h.clientSecrets, &h.clientState, true, uint16(profile))
				h.verify(t, &h.toServer, &h.serverState, false, uint16(profile))
			})
		}
	}
}

func (h *handshake) verify(t *testing.T, s *Secrets, state *dtls.State, client bool, profile uint16) {
	t.Helper()
	k, err := s.Keys(lengths)
	if err != nil {
		t.Fatalf("client %v: %v", client, err)
	}
	key, salt := lengths(profile)
	want, err := state.ExportKeyingMaterial(label, nil, 2*key+2*salt)
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Join([][]byte{k.ClientKey, k.ServerKey, k.ClientSalt, k.ServerSalt}, nil); !bytes.Equal(got, want) {
		t.Errorf("client %v: exported %x, want %x", client, got, want)
	}
	if k.Client != client || k.Profile != profile {
		t.Errorf("client %v and profile %d, want %v and %d", k.Client, k.Profile, client, profile)
	}
	k.Wipe()
	s.Wipe()
	if !bytes.Equal(k.ServerKey, make([]byte, key)) || s.master != nil {
		t.Error("something is left after wiping")
	}
	if _, err := s.Keys(lengths); !errors.Is(err, ErrNoSecret) {
		t.Errorf("keys after wiping: %v", err)
	}
}

// serverHello makes a datagram as a DTLS server might send it.
func serverHello(random byte, extensions []byte) []byte {
	body := append([]byte{0xFE, 0xFD}, bytes.Repeat([]byte{random}, 32)...)
	body = append(body, 2, 8, 9, 0xC0, 0x2B, 0) // session ID, suite, compression
	body = append(body, 0, byte(len(extensions)))
	body = append(body, extensions...)
	message := append([]byte{typeServerHello, 0, 0, byte(len(body)), 0, 1, 0, 0, 0, 0, 0, byte(len(body))}, body...)
	certificate := []byte{11, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 3, 0, 0, 0}
	message = append(message, certificate...) // BoringSSL puts several into one record
	return append([]byte{typeHandshake, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 1, 0, byte(len(message))}, message...)
}

var (
	gcm    = []byte{0, 23, 0, 0, 0, extUseSRTP, 0, 5, 0, 2, 0, 7, 0}
	logged = []byte("CLIENT_RANDOM " + hex.EncodeToString(make([]byte, 32)) + " " + hex.EncodeToString(bytes.Repeat([]byte{7}, 48)) + "\n")
)

func TestWhatIsMissing(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(s *Secrets)
		want error
	}{
		{"everything there", func(s *Secrets) { s.Look(serverHello(1, gcm), false) }, nil},
		{"behind another record", func(s *Secrets) {
			s.Look(append([]byte{20, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}, serverHello(1, gcm)...), false)
		}, nil},
		{"sent again", func(s *Secrets) {
			s.Look(serverHello(1, gcm), false)
			s.Look(serverHello(1, gcm), false)
		}, nil},
		{"no ServerHello", func(s *Secrets) {}, ErrNoHello},
		{"two", func(s *Secrets) {
			s.Look(serverHello(1, gcm), false)
			s.Look(serverHello(2, gcm), false)
		}, ErrManyHello},
		{"ours, and a stranger's", func(s *Secrets) {
			s.Look(serverHello(2, gcm), false)
			s.Look(serverHello(1, gcm), true)
			s.Look(serverHello(3, gcm), false)
		}, nil},
		{"no SRTP", func(s *Secrets) { s.Look(serverHello(1, gcm[:4]), false) }, ErrNoProfile},
		{"encrypted", func(s *Secrets) {
			p := serverHello(1, gcm)
			p[4] = 1
			s.Look(p, false)
		}, ErrNoHello},
		{"fragment", func(s *Secrets) {
			p := serverHello(1, gcm)
			p[recordHeader+3]++
			s.Look(p, false)
		}, ErrNoHello},
		{"MKI", func(s *Secrets) {
			e := append(bytes.Clone(gcm), 1)
			e[7], e[12] = 6, 1
			s.Look(serverHello(1, e), false)
		}, ErrNoHello},
		{"wiped", func(s *Secrets) {
			s.Wipe()
			s.Look(serverHello(1, gcm), false)
			_, _ = s.Write(logged)
		}, ErrNoSecret},
		{"a suite nobody knows", func(s *Secrets) {
			p := serverHello(1, gcm)
			p[recordHeader+handshakeHeader+38] = 0x99
			s.Look(p, false)
		}, ErrSuite},
	} {
		var s Secrets
		if _, err := s.Write(logged); err != nil {
			t.Fatal(err)
		}
		test.do(&s)
		if _, err := s.Keys(lengths); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	var s Secrets
	s.Look(serverHello(1, gcm), false)
	for _, line := range []string{"", "\n", "CLIENT_RANDOM 00 11", "OTHER " + string(logged[14:]), string(logged[:40])} {
		if n, err := s.Write([]byte(line)); n != len(line) || err != nil {
			t.Errorf("%q: %d, %v", line, n, err)
		}
	}
	if _, err := s.Keys(lengths); !errors.Is(err, ErrNoSecret) {
		t.Errorf("after lines that are none: %v", err)
	}
}

// FuzzLook: whatever passes, nothing panics, and what is taken for a ServerHello
// can be derived from.
func FuzzLook(f *testing.F) {
	f.Add(serverHello(1, gcm))
	f.Add(serverHello(1, nil))
	f.Add(serverHello(1, gcm)[:40])
	f.Fuzz(func(t *testing.T, p []byte) {
		var s Secrets
		_, _ = s.Write(logged)
		before := bytes.Clone(p)
		s.Look(p, false)
		if !bytes.Equal(before, p) {
			t.Fatal("the datagram was changed")
		}
		if k, err := s.Keys(lengths); err == nil && len(k.ServerSalt) == 0 {
			t.Fatal("keys without a salt")
		}
	})
}
