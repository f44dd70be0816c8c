package gateway

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sallyport/tls"
)

// validateDNS checks tls.acme.dns.
func (c Config) validateDNS(ps *problems) {
	d := c.TLS.ACME.DNS
	switch d.Provider {
	case "":
		return
	case tls.DNSProviderRFC2136:
		validateRFC2136(ps, d.RFC2136)
	case tls.DNSProviderACMEDNS:
		u, err := url.Parse(d.ACMEDNS.Server)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			ps.add("tls.acme.dns.acme_dns.server", "%q is not the URL of the API of acme-dns, like https://auth.example.com", withoutUser(d.ACMEDNS.Server))
		}
		if d.ACMEDNS.AccountFile == "" {
			ps.add("tls.acme.dns.acme_dns.account_file", "missing: the JSON that the server answered to the registration")
		}
	case tls.DNSProviderExec:
		if len(d.Exec) == 0 || d.Exec[0] == "" {
			ps.add("tls.acme.dns.exec", "missing: the program that makes the record, and its arguments, as a list")
		}
	default:
		ps.add("tls.acme.dns.provider", "%q is not one of rfc2136, acme-dns, exec", d.Provider)
	}
	if d.Propagation < 0 {
		ps.add("tls.acme.dns.propagation", "%s is negative: use 0s not to wait", d.Propagation)
	}
	for i, server := range d.Resolvers {
		if !isServer(server) {
			ps.add(fmt.Sprintf("tls.acme.dns.resolvers[%d]", i), "%q is not a host or host:port", server)
		}
	}
	if isAddress(c.Domain) {
		ps.add("tls.acme.dns.provider", "no CA gives a certificate for the address %s by a DNS record", c.Domain)
	}
}

func validateRFC2136(ps *problems, r tls.RFC2136) {
	const section = "tls.acme.dns.rfc2136."
	if !isServer(r.Server) {
		ps.add(section+"server", "%q is not the host or host:port of a DNS server", r.Server)
	}
	if r.KeyName == "" {
		ps.add(section+"key_name", "missing: what the server calls the key")
	}
	if r.KeyFile == "" {
		ps.add(section+"key_file", "missing: the file with the key in base64")
	}
	if !slices.Contains(tls.KeyAlgorithms, r.KeyAlgorithm) {
		ps.add(section+"key_algorithm", "%q is not one of %s", r.KeyAlgorithm, strings.Join(tls.KeyAlgorithms, ", "))
	}
}

// isServer reports whether s is host or host:port.
func isServer(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return isAddress(s) || isHostName(strings.ToLower(s))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && (isAddress(host) || isHostName(strings.ToLower(host)))
}
