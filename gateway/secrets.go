package gateway

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"sallyport/tls"
)

// The lengths of secrets, in bytes. The key of an rtcd client is hashed with
// bcrypt, which takes no more than 72 bytes.
const (
	minTURNSecret = 16
	maxTURNSecret = 4096
	minClientKey  = 32
	maxClientKey  = 72
	maxAccountKey = 4096
	minPreauth    = 16
	maxPreauth    = 4096
	maxSecretFile = 64 << 10 // of which anything is read
)

// Secrets are the contents of the files a Config names.
type Secrets struct {
	// TURN holds the current secret and then, if there is one, the previous.
	// Empty when TURN is off.
	TURN [][]byte
	// EAB is the key of the account at the CA; nil if there is none.
	EAB []byte
	// DNSKey signs updates of the DNS, DNSAccount is for acme-dns; nil unless
	// tls.acme.dns wants them.
	DNSKey, DNSAccount []byte
	// Preauth holds the current pre-authentication secret and then, if there
	// is one, the previous. Empty if none is asked for.
	Preauth [][]byte
	// Clients holds the key of each declared rtcd client by its id. Empty
	// unless sfu.mode is rtcd.
	Clients map[string][]byte

	files []readFile // that they come from
}

// A readFile is a file that was read, and what tells its content from another.
type readFile struct {
	SecretFile
	sum [sha256.Size]byte
}

// SecretFile is a file with a secret, and the key that names it.
type SecretFile struct {
	Key  string // dotted path, as in Problem
	Name string // of the file; may be empty in a Config that is not valid
}

// SecretFiles returns the files that c takes secrets from, in the order of
// config.yaml.
func (c Config) SecretFiles() []SecretFile {
	return slices.Concat(c.accountKeyFiles(), c.dnsFiles(), c.preauthFiles(), c.turnSecretFiles(), c.clientKeyFiles())
}

// accountKeyFiles returns none or one.
func (c Config) accountKeyFiles() []SecretFile {
	if c.TLS.Source != SourceACME || c.TLS.ACME.EAB.KeyID == "" {
		return nil
	}
	return []SecretFile{{"tls.acme.eab.hmac_key_file", c.TLS.ACME.EAB.HMACKeyFile}}
}

// dnsFiles returns none or one.
func (c Config) dnsFiles() []SecretFile {
	d := c.TLS.ACME.DNS
	switch {
	case c.TLS.Source != SourceACME:
	case d.Provider == tls.DNSProviderRFC2136:
		return []SecretFile{{"tls.acme.dns.rfc2136.key_file", d.RFC2136.KeyFile}}
	case d.Provider == tls.DNSProviderACMEDNS:
		return []SecretFile{{"tls.acme.dns.acme_dns.account_file", d.ACMEDNS.AccountFile}}
	}
	return nil
}

// forTLS are those that certificates need.
func (s Secrets) forTLS() tls.Secrets {
	return tls.Secrets{ExternalAccount: s.EAB, DNSKey: s.DNSKey, DNSAccount: s.DNSAccount}
}

func (c Config) preauthFiles() []SecretFile {
	if c.Access.PreauthSecretFile == "" {
		return nil
	}
	files := []SecretFile{{"access.preauth_secret_file", c.Access.PreauthSecretFile}}
	if c.Access.PreviousPreauthSecretFile != "" {
		files = append(files, SecretFile{"access.previous_preauth_secret_file", c.Access.PreviousPreauthSecretFile})
	}
	return files
}

func (c Config) turnSecretFiles() []SecretFile {
	if !c.TURN.Enabled {
		return nil
	}
	files := []SecretFile{{"turn.secret_file", c.TURN.SecretFile}}
	if c.TURN.PreviousSecretFile != "" {
		files = append(files, SecretFile{"turn.previous_secret_file", c.TURN.PreviousSecretFile})
	}
	return files
}

// clientKeyFiles returns one file for each declared client, in their order.
func (c Config) clientKeyFiles() []SecretFile {
	if c.SFU.Mode != ModeRTCD {
		return nil
	}
	var files []SecretFile
	for i, client := range c.SFU.API.Clients {
		files = append(files, SecretFile{fmt.Sprintf("sfu.api.clients[%d].key_file", i), client.KeyFile})
	}
	return files
}

// ReadSecrets reads the files that c names with read (nil: from the disk) and
// takes one newline off the end of each. It returns a problem for every file
// that cannot be read or holds too little or too much; no text of a problem
// contains anything of a secret.
func ReadSecrets(c Config, read func(name string) ([]byte, error)) (Secrets, []Problem) {
	if read == nil {
		read = readSecretFile
	}
	var ps problems
	s := Secrets{Clients: map[string][]byte{}}
	get := func(f SecretFile, least, most int) []byte {
		secret, err := readSecret(f.Name, read, least, most)
		if err != nil {
			ps.add(f.Key, "%v", err)
		}
		s.files = append(s.files, readFile{f, sha256.Sum256(secret)})
		return secret
	}
	for _, f := range c.accountKeyFiles() {
		s.EAB = get(f, 1, maxAccountKey)
		if _, err := tls.DecodeAccountKey(s.EAB); err != nil && s.EAB != nil {
			ps.add(f.Key, "%s: %v", f.Name, err)
		}
	}
	for _, f := range c.dnsFiles() {
		secret, fault := get(f, 1, maxSecretFile), error(nil)
		if c.TLS.ACME.DNS.Provider == tls.DNSProviderRFC2136 {
			s.DNSKey = secret
			_, fault = tls.DecodeDNSKey(secret)
		} else {
			s.DNSAccount = secret
			fault = tls.CheckDNSAccount(secret)
		}
		if fault != nil && secret != nil {
			ps.add(f.Key, "%s: %v", f.Name, fault)
		}
	}
	for _, f := range c.preauthFiles() {
		secret := get(f, minPreauth, maxPreauth)
		if bytes.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
			ps.add(f.Key, "%s: a secret in a header has no space and only printable ASCII characters", f.Name)
		}
		s.Preauth = append(s.Preauth, secret)
	}
	for _, f := range c.turnSecretFiles() {
		s.TURN = append(s.TURN, get(f, minTURNSecret, maxTURNSecret))
	}
	for i, f := range c.clientKeyFiles() {
		s.Clients[c.SFU.API.Clients[i].ID] = get(f, minClientKey, maxClientKey)
	}
	if len(ps) > 0 {
		return Secrets{}, ps
	}
	return s, nil
}

// readSecretFile reads a file unless it is much too large: a mistaken name may
// be that of a device.
func readSecretFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	secret, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err == nil && len(secret) > maxSecretFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxSecretFile)
	}
	return secret, err
}

func readSecret(name string, read func(string) ([]byte, error), least, most int) ([]byte, error) {
	if name == "" {
		return nil, errors.New("missing")
	}
	secret, err := read(name)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	secret = bytes.TrimSuffix(secret, []byte("\n"))
	secret = bytes.TrimSuffix(secret, []byte("\r"))
	switch n := len(secret); {
	case n < least:
		return nil, fmt.Errorf("%s holds %d bytes: a secret needs at least %d", name, n, least)
	case n > most:
		return nil, fmt.Errorf("%s holds %d bytes: a secret has at most %d", name, n, most)
	}
	return secret, nil
}
