package gateway

import (
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"sallyport/tls"
)

func (c Config) validateTLS(ps *problems) {
	t := c.TLS
	files := t.CertFile != "" || t.KeyFile != ""
	switch t.Source {
	case SourceFiles:
		if t.CertFile == "" {
			ps.add("tls.cert_file", "missing: tls.source is files")
		}
		if t.KeyFile == "" {
			ps.add("tls.key_file", "missing: tls.source is files")
		}
	case SourceACME:
		c.validateACME(ps)
	case SourceSelfSigned:
	default:
		ps.add("tls.source", "%q is not one of acme, files, selfsigned", t.Source)
		files = false // one complaint is enough
	}
	if files && t.Source != SourceFiles {
		key := "tls.cert_file"
		if t.CertFile == "" {
			key = "tls.key_file"
		}
		ps.add(key, "only used with tls.source: files, but the source is %s", t.Source)
	}
	c.validateNames(ps)
	if t.MinVersion != "1.2" && t.MinVersion != "1.3" {
		ps.add("tls.min_version", "%q is not \"1.2\" or \"1.3\"", t.MinVersion)
	}
	c.validateClientAuth(ps)
	if t.HSTS < 0 {
		ps.add("tls.hsts", "%s is negative: use 0s to turn it off", t.HSTS)
	}
}

func (c Config) validateClientAuth(ps *problems) {
	switch a := c.TLS.ClientAuth; a.Mode {
	case tls.ClientAuthOff:
		if a.CAFile != "" {
			ps.add("tls.client_auth.ca_file", "only used with tls.client_auth.mode optional or required")
		}
	case tls.ClientAuthOptional, tls.ClientAuthRequired:
		if a.CAFile == "" {
			ps.add("tls.client_auth.ca_file", "missing: the CAs that vouch for clients, as PEM")
		}
	default:
		ps.add("tls.client_auth.mode", "%q is not one of off, optional, required", a.Mode)
	}
}

// validateNames checks tls.names.
func (c Config) validateNames(ps *problems) {
	for i, name := range c.TLS.Names {
		key := fmt.Sprintf("tls.names[%d]", i)
		plain, wildcard := strings.CutPrefix(name, "*.")
		switch {
		case !isHostName(plain) || isAddress(plain):
			ps.add(key, "%q is not a host name in lower case, like calls.example.com", name)
		case wildcard && c.TLS.Source == SourceACME && c.TLS.ACME.DNS.Provider == "":
			ps.add(key, "%q is a wildcard, which a CA gives only by a DNS record: see tls.acme.dns", name)
		case name == c.Domain || slices.Contains(c.TLS.Names[:i], name):
			ps.add(key, "%q is in the list already, or is the domain", name)
		case c.TLS.Source == SourceACME && c.TLS.ACME.Public() && !strings.Contains(plain, "."):
			ps.add(key, "no public CA gives a certificate for %q", name)
		}
	}
}

func (c Config) validateACME(ps *problems) {
	a := c.TLS.ACME
	public := a.CA != "" && a.Public()
	if u, err := url.Parse(a.CA); !public && (err != nil || u.Scheme != "https" || u.Host == "") {
		ps.add("tls.acme.ca", "%q is not letsencrypt, letsencrypt-staging or the https:// URL of an ACME directory", withoutUser(a.CA))
	}
	if public && a.CARootFile != "" {
		ps.add("tls.acme.ca_root_file", "only used with a private CA in tls.acme.ca, but that is %s", a.CA)
	}
	if a.Email != "" {
		if m, err := mail.ParseAddress(a.Email); err != nil || m.Address != a.Email {
			ps.add("tls.acme.email", "%q is not an e-mail address", a.Email)
		}
	}
	if a.Storage == "" {
		ps.add("tls.acme.storage", "missing: certificates need a directory, like /var/lib/sallyport/acme")
	}
	if !slices.Contains(tls.KeyTypes, a.KeyType) {
		ps.add("tls.acme.key_type", "%q is not one of %s", a.KeyType, strings.Join(tls.KeyTypes, ", "))
	}
	switch {
	case a.EAB.KeyID != "" && a.EAB.HMACKeyFile == "":
		ps.add("tls.acme.eab.hmac_key_file", "missing: tls.acme.eab.key_id names a key, and this is the file that holds it")
	case a.EAB.KeyID == "" && a.EAB.HMACKeyFile != "":
		ps.add("tls.acme.eab.key_id", "missing: the CA gave a name with the key in tls.acme.eab.hmac_key_file")
	}
	c.validateDNS(ps)
	if public && c.Domain != "" {
		c.validatePublicName(ps)
	}
}

// validatePublicName checks that Let's Encrypt would give a certificate for the
// domain.
func (c Config) validatePublicName(ps *problems) {
	ip, err := netip.ParseAddr(c.Domain)
	switch {
	case err != nil && !strings.Contains(c.Domain, "."), err == nil && (ip.IsPrivate() || !ip.IsGlobalUnicast()):
		ps.add("domain", "no public CA gives a certificate for %q: use a public name or address, or tls.source: selfsigned", c.Domain)
	case err == nil && c.TLS.ACME.Profile != "" && c.TLS.ACME.Profile != "shortlived":
		ps.add("tls.acme.profile", "%q is not shortlived, the one that Let's Encrypt has for an IP address", c.TLS.ACME.Profile)
	}
}
