package main

import (
	"crypto/x509"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"sallyport/gateway"
	"sallyport/gateway/admin"
	"sallyport/gateway/doctor"
	"sallyport/turn"
)

// doctorCredentialTTL is how long the doctor's TURN credentials are good for:
// long enough for clocks that differ, and no longer.
const doctorCredentialTTL = 10 * time.Minute

// targetOf places the listeners of c at its domain, or at -address.
func (f *doctorFlags) targetOf(c gateway.Config) doctor.Target {
	t := doctor.Target{
		Host: c.Domain, Port: portNumber(portText(c.Listen.HTTPS)), Upstream: c.Upstream,
		AdminURL: "http://" + local(c.Admin.Listen), TLS13Only: c.TLS.MinVersion == "1.3",
		RelayTo: c.TURN.RelayTo, PingPath: c.Proxy.HealthPath, UpstreamName: c.Proxy.UpstreamServerName,
		UpstreamRoots: rootsIn(c.Proxy.UpstreamCAFile), SitePath: c.Proxy.SitePath,
	}
	if base, ok := strings.CutSuffix(c.Proxy.HealthPath, gateway.Default().Proxy.HealthPath); ok { // SiteURL has a path
		t.WebSocketPath = base + "/api/v4/websocket"
	}
	if f.admin != "" {
		t.AdminURL = "http://" + f.admin
	}
	host, port := c.Domain, portText(c.Listen.HTTPS)
	if f.address != "" {
		host, port, _ = net.SplitHostPort(f.address) // as check has seen
	}
	t.HTTPSAddress = net.JoinHostPort(host, port)
	if c.Listen.HTTP != "" {
		t.HTTPAddress = net.JoinHostPort(host, portText(c.Listen.HTTP))
	}
	if c.Listen.UDP != "" {
		udp := portText(c.Listen.UDP)
		if udp == portText(c.Listen.HTTPS) {
			udp = port // what moves one moves the other
		}
		t.UDPAddress = net.JoinHostPort(host, udp)
	}
	if c.SFU.Mode == gateway.ModeRTCD {
		t.APIURL = "http://" + local(c.SFU.API.Listen)
		t.MediaUDP, t.MediaTCP = c.SFU.UDP, c.SFU.TCP
		if len(c.SFU.Advertise) > 0 && !strings.HasPrefix(c.SFU.Advertise[0], "stun:") {
			external, _, _ := strings.Cut(c.SFU.Advertise[0], "/")
			t.MediaUDP = net.JoinHostPort(external, portText(c.SFU.UDP))
		}
	}
	return t
}

// rootsIn is the CAs in a PEM file; nil, those of the system, if it has none: then
// the running process says so.
func rootsIn(name string) *x509.CertPool {
	pem, err := os.ReadFile(name)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		return nil
	}
	return pool
}

// addSecrets adds what the secret files of c are good for, and the files.
func addSecrets(t *doctor.Target, c gateway.Config) {
	problems := map[string]string{}
	read := func(c gateway.Config) gateway.Secrets {
		s, faults := gateway.ReadSecrets(c, nil)
		for _, p := range faults {
			problems[p.Key] = p.Text
		}
		return s
	}
	forTURN, forClients, forApps := c, c, c // so that a fault of one does not hide the other
	forTURN.Access, forClients.Access = gateway.Access{}, gateway.Access{}
	forTURN.SFU.API.Clients = nil
	forClients.TURN.Enabled = false
	forApps.TURN.Enabled, forApps.SFU.API.Clients = false, nil
	read(forApps)
	if s := read(forTURN); len(s.TURN) > 0 {
		t.TURNUsername, t.TURNPassword = turn.Credentials(s.TURN[0], "doctor", time.Now().Add(doctorCredentialTTL))
	}
	if s := read(forClients); len(s.Clients) > 0 {
		t.ClientID = c.SFU.API.Clients[0].ID
		t.ClientKey = string(s.Clients[t.ClientID])
	}
	for _, file := range c.SecretFiles() {
		t.Secrets = append(t.Secrets, doctor.SecretFile{Key: file.Key, Name: file.Name, Problem: problems[file.Key]})
	}
	if c.TLS.Source == gateway.SourceFiles {
		t.Secrets = append(t.Secrets, doctor.SecretFile{Key: "tls.key_file", Name: c.TLS.KeyFile})
	}
}

// locateMedia takes the media address from the running process, which knows
// where it is bound.
func locateMedia(t *doctor.Target, running admin.Status) {
	for _, l := range running.Listeners {
		if l.Key == "sfu.udp" && t.MediaUDP != "" {
			t.MediaUDP = l.Address
		}
	}
}

// adminStatus asks the admin listener.
func adminStatus(address string) (admin.Status, error) {
	var s admin.Status
	body, err := fetchStatus(address)
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// local is where to reach a listener of this machine.
func local(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func portText(listen string) string {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	return strconv.Itoa(int(portNumber(port)))
}

// portNumber is the number of a port that may be a service's name; 0 if it is none.
func portNumber(port string) uint16 {
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return 0
	}
	return uint16(n)
}
