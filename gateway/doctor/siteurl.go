package doctor

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

const (
	// clientConfig is what Mattermost tells everybody of its settings.
	clientConfig = "/api/v4/config/client?format=old"
	// siteURLSetting is where an administrator finds it.
	siteURLSetting = "System Console > Environment > Web Server > Site URL"
)

// checkSiteURL looks whether Mattermost takes itself to be where users find it:
// it compares the Origin of WebSockets with that, and writes it into mails.
func checkSiteURL(ctx context.Context, t *Target) result {
	if len(t.Upstream) == 0 {
		return skipped("no upstream is known").todo("set upstream")
	}
	var site *string
	var r result
	for _, base := range t.Upstream { // all nodes have the same
		if site, r = t.askSiteURL(ctx, base); site != nil {
			return t.judgeSiteURL(*site)
		}
	}
	return r
}

// askSiteURL asks the node at base for SiteURL, as a browser would. Without it, r
// says why.
func (t *Target) askSiteURL(ctx context.Context, base string) (site *string, r result) {
	c, at, done := t.node(base)
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at+t.SitePath+clientConfig, nil)
	if err != nil {
		return nil, skipped("%s is no upstream", base).todo("correct upstream")
	}
	req.Host = strings.TrimPrefix(t.origin(), "https://")
	resp, body, err := fetch(c, req)
	if err != nil {
		return nil, unasked(err, base, "upstream.ping")
	}
	var config struct{ SiteURL *string }
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, &config) != nil || config.SiteURL == nil {
		return nil, skipped("%s does not tell its SiteURL (%s answers %s)", base, clientConfig, resp.Status).
			todo("see that %s is %s", siteURLSetting, t.site())
	}
	return config.SiteURL, result{}
}

// site is the URL at which users find Mattermost.
func (t *Target) site() string { return t.origin() + t.SitePath }

// judgeSiteURL compares Mattermost's SiteURL with ours.
func (t *Target) judgeSiteURL(site string) result {
	want, err := url.Parse(t.site())
	got, fault := url.Parse(strings.TrimSuffix(site, "/"))
	switch {
	case err != nil:
		return skipped("%s is no URL", t.site()).todo("correct domain")
	case site == "":
		return warned("Mattermost has no SiteURL: it needs one for WebSockets and for links in mails").todo("set %s to %s", siteURLSetting, want)
	case fault != nil || got.Host == "":
		return warned("SiteURL is %q, which is no URL", site).todo("set %s to %s", siteURLSetting, want)
	case !sameOrigin(got, want):
		return warned("SiteURL is %s, but users come to %s: WebSockets may be refused, and links in mails lead elsewhere", site, want).
			todo("set %s to %s, or domain and listen.https to what it says", siteURLSetting, want)
	case got.Path != want.Path:
		return warned("SiteURL is %s, but proxy.site_path is %q", site, t.SitePath).
			todo("set proxy.site_path to %q and proxy.health_path to %s, or %s to %s", got.Path, got.Path+pingPath, siteURLSetting, want)
	}
	return passed("SiteURL is %s", site)
}

// sameOrigin compares all but the paths.
func sameOrigin(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		if u.Port() == "" && strings.EqualFold(u.Scheme, "https") {
			return "443"
		}
		return u.Port()
	}
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}
