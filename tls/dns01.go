package tls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
	"github.com/mholt/acmez/v3"
	"go.uber.org/zap"
)

// The values of [DNS].Provider; empty is none.
const (
	DNSProviderRFC2136 = "rfc2136"
	DNSProviderACMEDNS = "acme-dns"
	DNSProviderExec    = "exec"
)

// dnsLimit bounds one change of a record, whoever makes it.
const dnsLimit = time.Minute

// DNS says how to prove by a DNS record that a name is ours (the challenge
// DNS-01). It is the only way to a certificate for a wildcard name, and then the
// way to those for all others as well.
type DNS struct {
	// Provider is who makes the record: "rfc2136", "acme-dns" or "exec"; empty
	// leaves it at the challenges that go through our ports.
	Provider string `koanf:"provider"`

	// RFC2136 configures the provider of that name.
	RFC2136 RFC2136 `koanf:"rfc2136"`

	// ACMEDNS configures the provider acme-dns.
	ACMEDNS ACMEDNS `koanf:"acme_dns"`

	// Exec is the program, with its arguments, of the provider exec. To these are
	// added "present" or "cleanup", the full name of the TXT record, and its value.
	Exec []string `koanf:"exec"`

	// Propagation is how long we wait for the record to be seen before the CA is
	// told to look; 0 does not wait.
	Propagation time.Duration `koanf:"propagation"`

	// Resolvers are DNS servers, host or host:port, to ask for the record, and
	// which zone it is in; empty means the system's for that, and the zone's own
	// servers for the record.
	Resolvers []string `koanf:"resolvers"`
}

// RFC2136 is a DNS server that takes signed updates (RFC 2136, RFC 8945).
type RFC2136 struct {
	// Server is its address, host or host:port.
	Server string `koanf:"server"`

	// KeyName is what the server calls the key.
	KeyName string `koanf:"key_name"`

	// KeyAlgorithm is one of KeyAlgorithms; empty is "hmac-sha256".
	KeyAlgorithm string `koanf:"key_algorithm"`

	// KeyFile is the file with the key, in base64.
	KeyFile string `koanf:"key_file"`
}

// ACMEDNS is a server of the API of acme-dns, to which a CNAME record leads.
type ACMEDNS struct {
	// Server is the URL of its API.
	Server string `koanf:"server"`

	// AccountFile is the file with what the server answered to the registration,
	// or an object of such answers by domain, as some ACME clients keep them.
	AccountFile string `koanf:"account_file"`
}

// KeyAlgorithms are the values of [RFC2136].KeyAlgorithm.
var KeyAlgorithms = []string{"hmac-sha256", "hmac-sha384", "hmac-sha512"}

// Secrets are the contents of files that a Config names.
type Secrets struct {
	ExternalAccount []byte // ACME.EAB.HMACKeyFile
	DNSKey          []byte // ACME.DNS.RFC2136.KeyFile
	DNSAccount      []byte // ACME.DNS.ACMEDNS.AccountFile
}

// A dnsProvider makes and removes TXT records with the name fqdn, which ends
// with a dot.
type dnsProvider interface {
	present(ctx context.Context, zone, fqdn, value string) error
	cleanUp(ctx context.Context, zone, fqdn, value string) error
}

// newDNSProvider returns the provider of cfg, nil if it names none.
func newDNSProvider(cfg DNS, s Secrets) (dnsProvider, error) {
	switch cfg.Provider {
	case "":
		return nil, nil
	case DNSProviderRFC2136:
		return newRFC2136(cfg.RFC2136, s.DNSKey)
	case DNSProviderACMEDNS:
		return newACMEDNS(cfg.ACMEDNS, s.DNSAccount)
	case DNSProviderExec:
		if len(cfg.Exec) == 0 {
			return nil, errors.New("tls.acme.dns.exec is empty")
		}
		return execHook(slices.Clone(cfg.Exec)), nil
	}
	return nil, fmt.Errorf("tls.acme.dns.provider %q: want rfc2136, acme-dns or exec", cfg.Provider)
}

// solver makes certmagic use p, which may be nil.
func (d DNS) solver(p dnsProvider, log *zap.Logger) acmez.Solver {
	if p == nil {
		return nil
	}
	wait := d.Propagation
	if wait == 0 {
		wait = -1 // which 0 means there
	}
	return &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
		DNSProvider: records{p}, TTL: time.Minute, PropagationTimeout: wait, Resolvers: slices.Clone(d.Resolvers), Logger: log,
	}}
}

// records is a provider as certmagic knows them.
type records struct{ dnsProvider }

// AppendRecords implements certmagic.DNSProvider.
func (r records) AppendRecords(ctx context.Context, zone string, all []libdns.Record) ([]libdns.Record, error) {
	return r.each(ctx, zone, all, r.present)
}

// DeleteRecords implements certmagic.DNSProvider.
func (r records) DeleteRecords(ctx context.Context, zone string, all []libdns.Record) ([]libdns.Record, error) {
	return r.each(ctx, zone, all, r.cleanUp)
}

func (r records) each(ctx context.Context, zone string, all []libdns.Record, do func(ctx context.Context, zone, fqdn, value string) error) ([]libdns.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsLimit)
	defer cancel()
	for i, record := range all {
		rr := record.RR()
		if err := do(ctx, zone, libdns.AbsoluteName(rr.Name, zone), rr.Data); err != nil {
			return all[:i], err
		}
	}
	return all, nil
}

// withPort is address with a port: its own or, if it has none, port.
func withPort(address, port string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(address, port)
}
