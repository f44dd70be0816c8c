package tls

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// rfc2136 makes records by signed updates.
type rfc2136 struct {
	cfg RFC2136
	key string // base64
}

// DecodeDNSKey reads the content of an RFC2136.KeyFile.
func DecodeDNSKey(text []byte) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) == 0 {
		return nil, errors.New("the key is not base64") // base64's own error would quote it
	}
	return key, nil
}

func newRFC2136(cfg RFC2136, text []byte) (*rfc2136, error) {
	key, err := DecodeDNSKey(text)
	if err != nil {
		return nil, fmt.Errorf("tls.acme.dns.rfc2136.key_file: %w", err)
	}
	return &rfc2136{cfg, base64.StdEncoding.EncodeToString(key)}, nil
}

func (p *rfc2136) present(ctx context.Context, zone, fqdn, value string) error {
	m := new(dns.Msg).SetUpdate(zone)
	m.Insert([]dns.RR{record(fqdn, value)})
	return p.update(ctx, m)
}

func (p *rfc2136) cleanUp(ctx context.Context, zone, fqdn, value string) error {
	m := new(dns.Msg).SetUpdate(zone)
	m.Remove([]dns.RR{record(fqdn, value)})
	return p.update(ctx, m)
}

func record(fqdn, value string) dns.RR {
	return &dns.TXT{
		Hdr: dns.RR_Header{Name: fqdn, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
		Txt: []string{value}, // 43 bytes; one string holds 255
	}
}

// update sends m over TCP, which needs no repetition.
func (p *rfc2136) update(ctx context.Context, m *dns.Msg) error {
	key, algorithm, server := dns.Fqdn(p.cfg.KeyName), dns.HmacSHA256, withPort(p.cfg.Server, "53")
	if p.cfg.KeyAlgorithm != "" {
		algorithm = dns.Fqdn(p.cfg.KeyAlgorithm)
	}
	m.SetTsig(key, algorithm, 300, time.Now().Unix())
	client := &dns.Client{Net: "tcp", Timeout: dnsLimit, TsigSecret: map[string]string{key: p.key}}
	answer, _, err := client.ExchangeContext(ctx, m, server)
	zone := m.Question[0].Name
	switch {
	case err != nil && answer != nil && answer.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("update zone %s at %s: %s (%w)", zone, server, dns.RcodeToString[answer.Rcode], err)
	case err != nil:
		return fmt.Errorf("update zone %s at %s: %w", zone, server, err)
	case answer.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("update zone %s at %s: %s", zone, server, dns.RcodeToString[answer.Rcode])
	case answer.IsTsig() == nil:
		return fmt.Errorf("update zone %s at %s: the answer is not signed", zone, server)
	}
	return nil
}

// acmeDNS makes records at a server that serves nothing else.
type acmeDNS struct {
	server   string
	accounts map[string]acmeDNSAccount // by domain; "" is for all others
}

// acmeDNSAccount is what such a server answers to a registration.
type acmeDNSAccount struct {
	Username  string `json:"username"`
	Password  string `json:"password"`
	Subdomain string `json:"subdomain"`
}

// CheckDNSAccount says what is wrong with the content of an ACMEDNS.AccountFile.
func CheckDNSAccount(text []byte) error {
	_, err := decodeDNSAccounts(text)
	return err
}

func decodeDNSAccounts(text []byte) (map[string]acmeDNSAccount, error) {
	var one acmeDNSAccount
	err := json.Unmarshal(text, &one)
	all := map[string]acmeDNSAccount{"": one}
	if err == nil && one == (acmeDNSAccount{}) {
		all = nil
		err = json.Unmarshal(text, &all)
	}
	if err != nil || len(all) == 0 {
		return nil, errors.New("not an account of acme-dns, in JSON, nor an object of such") // json's own error may quote it
	}
	for _, a := range all {
		if a.Username == "" || a.Password == "" || a.Subdomain == "" {
			return nil, errors.New("an account lacks username, password or subdomain")
		}
	}
	return all, nil
}

func newACMEDNS(cfg ACMEDNS, text []byte) (*acmeDNS, error) {
	accounts, err := decodeDNSAccounts(text)
	if err != nil {
		return nil, fmt.Errorf("tls.acme.dns.acme_dns.account_file: %w", err)
	}
	return &acmeDNS{strings.TrimSuffix(cfg.Server, "/"), accounts}, nil
}

func (p *acmeDNS) present(ctx context.Context, _, fqdn, value string) error {
	domain := strings.TrimSuffix(strings.TrimPrefix(fqdn, "_acme-challenge."), ".")
	account, ok := p.accounts[domain]
	if !ok {
		if account, ok = p.accounts[""]; !ok {
			return fmt.Errorf("acme-dns: tls.acme.dns.acme_dns.account_file has no account for %s", domain)
		}
	}
	body, _ := json.Marshal(map[string]string{"subdomain": account.Subdomain, "txt": value}) // cannot fail
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.server+"/update", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("acme-dns: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Api-User", account.Username)
	r.Header.Set("X-Api-Key", account.Password)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("acme-dns: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return fmt.Errorf("acme-dns: %s answers %s: %q", p.server, resp.Status, text)
	}
	return nil
}

// cleanUp does nothing: the server keeps the two latest values.
func (p *acmeDNS) cleanUp(context.Context, string, string, string) error { return nil }
