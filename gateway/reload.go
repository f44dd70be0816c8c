package gateway

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// The label of sallyport_config_reloads_total.
const (
	reloadDone   = "ok"
	reloadFailed = "failed"
)

// hotKeys are the keys, or sections, that a reload applies. All others need a
// restart. (Those of the log need one, too, if Options cannot change them, and a
// proxy.max_header beyond what net/http reads.)
var hotKeys = []string{
	"upstream",
	"tls",
	"proxy",
	"limits", "access",
	"turn.secret_file", "turn.previous_secret_file",
	"sfu.api.clients",
	"log.level", "log.format", "log.access", "log.sample",
	"drain",
	"reload",
}

// Reload puts cfg in force as far as that is possible without a restart, and
// reads certificate and secret files again even if their names are the same.
// It returns what changed. Connections, calls and relays are not touched.
//
// Everything is checked before anything is changed: after an error all is as it
// was.
func (g *Gateway) Reload(cfg Config) (Changes, error) {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	trusted := g.proxy.settings.Load().pool.secure
	secrets, err := g.reload(cfg)
	if err != nil {
		g.ReloadFailed()
		return Changes{}, err
	}
	g.metrics.reloads.WithLabelValues(reloadDone).Inc()
	all := append(changes(g.cfg, cfg), changedContents(g.secrets, secrets)...)
	if ca := cfg.Proxy.UpstreamCAFile; ca == g.cfg.Proxy.UpstreamCAFile && !g.proxy.settings.Load().pool.secure.SameRoots(trusted) {
		all = append(all, Change{Key: "proxy.upstream_ca_file", Old: ca, New: ca, Content: true})
	}
	c := g.sorted(all, cfg)
	g.secrets = secrets
	next := g.merged(cfg)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cfg = next
	return c, nil
}

// sorted tells what is in force from what waits for a restart.
func (g *Gateway) sorted(all []Change, next Config) Changes {
	c := Changes{Applied: []Change{}, Restart: []Change{}} // to JSON, nothing is a list, too
	for _, one := range all {
		if g.isHot(one.Key) && (one.Key != "proxy.max_header" || g.reads(next.Proxy.MaxHeader)) {
			c.Applied = append(c.Applied, one)
		} else {
			c.Restart = append(c.Restart, one)
		}
	}
	return c
}

// ReloadFailed counts a reload that ended before there was a Config to hand to
// Reload: a file that cannot be read or understood.
func (g *Gateway) ReloadFailed() {
	g.metrics.reloads.WithLabelValues(reloadFailed).Inc()
}

// reload puts the hot keys of cfg in force and returns the secrets it has read.
func (g *Gateway) reload(cfg Config) (Secrets, error) {
	none := Secrets{}
	if err := joinProblems(cfg.Validate()); err != nil {
		return none, err
	}
	next := g.merged(cfg)
	secrets, problems := ReadSecrets(next, g.opts.ReadFile)
	if err := joinProblems(problems); err != nil {
		return none, err
	}
	level, err := parseLevel(next.Log.Level)
	if err != nil {
		return none, err
	}
	pool, err := g.nextPool(next)
	if err != nil {
		return none, err
	}
	s, err := newSettings(next, pool)
	if err != nil {
		return none, err
	}
	if err := g.certs.Reload(next.TLS, secrets.forTLS()); err != nil { // the last that can fail; it keeps the old one then
		return none, err
	}
	if g.turn != nil {
		g.turn.SetSecrets(secrets.TURN)
		g.turn.SetTrusted(s.trusted)
	}
	if g.rtcd != nil {
		g.rtcd.SetKeys(secrets.Clients)
	}
	if g.opts.Level != nil {
		g.opts.Level.Set(level)
	}
	if g.opts.TextLog != nil {
		g.opts.TextLog.Store(next.Log.Format == "text")
	}
	g.port.SetTrusted(s.trusted)
	g.port.SetLimits(next.Limits.Connections, s.limits.exempt)
	s.preauth.accept(secrets.Preauth)
	g.secure.minRate.Store(next.Proxy.MinRate)
	g.proxy.use(s)
	g.proxy.tellMaintenance()
	return secrets, nil
}

// nextPool is the present pool, with its connections, if nothing about it
// changes.
func (g *Gateway) nextPool(next Config) (*pool, error) {
	now := g.proxy.settings.Load().pool
	pool, err := newPool(next.Upstream, next.Proxy, now.upstreams)
	if err == nil && pool.same(now) {
		return now, nil
	}
	return pool, err
}

// merged is the configuration in force once next was reloaded: the present one
// with the hot keys of next.
func (g *Gateway) merged(next Config) Config {
	c := g.cfg
	c.Upstream = next.Upstream
	c.TLS = next.TLS
	c.Proxy = next.Proxy
	if !g.reads(next.Proxy.MaxHeader) {
		c.Proxy.MaxHeader = g.cfg.Proxy.MaxHeader
	}
	c.Limits, c.Access = next.Limits, next.Access
	c.TURN.SecretFile, c.TURN.PreviousSecretFile = next.TURN.SecretFile, next.TURN.PreviousSecretFile
	c.SFU.API.Clients = next.SFU.API.Clients
	if g.opts.Level != nil {
		c.Log.Level = next.Log.Level
	}
	if g.opts.TextLog != nil {
		c.Log.Format = next.Log.Format
	}
	c.Log.Access, c.Log.Sample = next.Log.Access, next.Log.Sample
	c.Drain, c.Reload = next.Drain, next.Reload
	return c
}

// reads reports whether net/http reads headers of n bytes, for which it is told once.
func (g *Gateway) reads(n int) bool { return n <= g.longestHeader }

func (g *Gateway) isHot(key string) bool {
	if key == "log.level" && g.opts.Level == nil || key == "log.format" && g.opts.TextLog == nil {
		return false
	}
	return slices.ContainsFunc(hotKeys, func(hot string) bool {
		rest, found := strings.CutPrefix(key, hot)
		return found && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

func parseLevel(s string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(s)); err != nil {
		return 0, fmt.Errorf("log.level: %w", err)
	}
	return l, nil
}
