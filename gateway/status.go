package gateway

import (
	"slices"
	"time"

	"sallyport/gateway/admin"
)

// Status gathers what the gateway is doing. It may be called at any time.
func (g *Gateway) Status() admin.Status {
	cfg := g.config()
	s := admin.Status{
		Version: g.opts.Version.Number, Domain: cfg.Domain, Started: g.began,
		State: g.state(), Listeners: g.listeners(), WebSockets: g.proxy.tunnels.count(),
	}
	c := g.certs.Status()
	s.Certificate = admin.Certificate{
		Source: c.Source, Names: slices.Concat(c.Names), Ready: c.Ready, Issuer: c.Issuer,
		NotAfter: c.NotAfter, Error: c.LastError, Next: c.NextAttempt, Warning: c.Warning,
	}
	if !c.NotAfter.IsZero() {
		s.Certificate.DaysLeft = int(time.Until(c.NotAfter).Hours() / 24)
	}
	for _, e := range c.Expiry {
		s.Certificate.Expiry = append(s.Certificate.Expiry, admin.Expiry(e))
	}
	s.Upstreams = g.proxy.upstreams()
	g.mediaStatus(&s)
	return s
}

func (g *Gateway) state() string {
	return [...]string{starting: admin.Starting, serving: admin.Serving, stopping: admin.Draining}[g.phase.Load()]
}

func (g *Gateway) listeners() []admin.Listener {
	a := g.Addrs()
	all := []admin.Listener{
		{Key: "listen.https", Network: "tcp", Address: a.HTTPS},
		{Key: "listen.http", Network: "tcp", Address: a.HTTP},
		{Key: "listen.udp", Network: "udp", Address: a.UDP},
		{Key: "sfu.udp", Network: "udp", Address: a.MediaUDP},
		{Key: "sfu.tcp", Network: "tcp", Address: a.MediaTCP},
		{Key: "sfu.api.listen", Network: "tcp", Address: a.API},
		{Key: "admin.listen", Network: "tcp", Address: a.Admin},
		{Key: "admin.socket", Network: "unix", Address: a.Commands},
	}
	return slices.DeleteFunc(all, func(l admin.Listener) bool { return l.Address == "" })
}
