package tls

import (
	"encoding/base64"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// The key of the zone.
const (
	zoneKeyName = "sallyport."
	zoneKey     = "the key of the zone in these tests"
)

// A zone is a DNS server for example.com and all below, over UDP and TCP. It has
// 127.0.0.1 for every name, and takes updates of TXT records that are signed.
type zone struct {
	addr string

	mu      sync.Mutex // guards the following
	txt     map[string][]string
	aliases map[string]string // CNAME
	refused int               // updates
	made    int               // TXT records, ever
}

func startZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{txt: make(map[string][]string), aliases: make(map[string]string)}
	var ln net.Listener
	var udp net.PacketConn
	for range 20 { // the same number must be free for both
		ln = listen(t)
		var err error
		if udp, err = net.ListenPacket("udp", ln.Addr().String()); err == nil {
			break
		}
		ln.Close()
	}
	if udp == nil {
		t.Fatal("no port is free for UDP and TCP")
	}
	z.addr = ln.Addr().String()
	for _, s := range []*dns.Server{{Listener: ln}, {PacketConn: udp}} {
		started, done := make(chan struct{}), make(chan error, 1)
		s.NotifyStartedFunc = func() { close(started) }
		s.Handler = dns.HandlerFunc(z.serve)
		s.TsigSecret = map[string]string{zoneKeyName: base64.StdEncoding.EncodeToString([]byte(zoneKey))}
		s.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept } // updates, too
		go func() { done <- s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	return z
}

func (z *zone) serve(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg).SetReply(q)
	if q.Opcode == dns.OpcodeUpdate {
		z.update(w, q, m)
	} else {
		z.answer(strings.ToLower(q.Question[0].Name), q.Question[0].Qtype, m)
	}
	_ = w.WriteMsg(m)
}

func (z *zone) update(w dns.ResponseWriter, q, m *dns.Msg) {
	signature := q.IsTsig()
	if signature == nil || w.TsigStatus() != nil || q.Question[0].Name != "example.com." {
		z.refused++
		m.Rcode = dns.RcodeNotAuth
		return
	}
	for _, rr := range q.Ns {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		name, value := strings.ToLower(txt.Hdr.Name), strings.Join(txt.Txt, "")
		if txt.Hdr.Class == dns.ClassINET {
			z.add(name, value)
		} else {
			z.txt[name] = slices.DeleteFunc(z.txt[name], func(v string) bool { return v == value })
		}
	}
	m.SetTsig(signature.Hdr.Name, signature.Algorithm, 300, int64(signature.TimeSigned))
}

// add makes a TXT record. The caller holds mu.
func (z *zone) add(name, value string) {
	z.txt[name] = append(z.txt[name], value)
	z.made++
}

func (z *zone) answer(name string, kind uint16, m *dns.Msg) {
	head := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET}
	}
	if target, ok := z.aliases[name]; ok {
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: head(dns.TypeCNAME), Target: target})
		name = target
	}
	switch kind {
	case dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{Hdr: head(kind), A: net.IPv4(127, 0, 0, 1)})
	case dns.TypeTXT:
		for _, v := range z.txt[name] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: head(kind), Txt: []string{v}})
		}
	case dns.TypeSOA:
		if name == "example.com." {
			m.Answer = append(m.Answer, &dns.SOA{Hdr: head(kind), Ns: "ns.example.com.", Mbox: "admin.example.com."})
		}
	}
}

// records are how many TXT records there are, and how many there have been.
func (z *zone) records() (now, ever int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, values := range z.txt {
		now += len(values)
	}
	return now, z.made
}
