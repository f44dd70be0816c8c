package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"sallyport/gateway"
	"sallyport/gateway/demo"
	"sallyport/gateway/doctor"
)

// demoConfigPath is where the demo's page gets TURN credentials.
const demoConfigPath = "/demo/config"

// demoTarget asks a running demo where everything is. Its secrets are in its
// memory only, but like every visitor's page we get TURN credentials.
func (f *doctorFlags) demoTarget() (doctor.Target, error) {
	c := gateway.Default()
	c.Admin.Listen = cmp.Or(f.admin, c.Admin.Listen)
	running, err := adminStatus(c.Admin.Listen)
	if err != nil {
		return doctor.Target{}, fmt.Errorf("%w: start it with `sallyport demo`, or name its admin listener with -admin", err)
	}
	bound := map[string]string{}
	for _, l := range running.Listeners {
		bound[l.Key] = l.Address
	}
	c.Domain, c.Upstream = running.Domain, nil
	for _, u := range running.Upstreams {
		c.Upstream = append(c.Upstream, u.URL)
	}
	c.Listen = gateway.Listen{HTTPS: bound["listen.https"], UDP: bound["listen.udp"]}
	c.SFU.UDP, c.SFU.TCP, c.SFU.API.Listen = bound["sfu.udp"], bound["sfu.tcp"], bound["sfu.api.listen"]
	if f.address == "" {
		f.address = c.Listen.HTTPS // and not ::1, which localhost may be
	}
	t := f.targetOf(c)
	t.WebSocketPath = "/demo/ws"
	t.TURNUsername, t.TURNPassword, err = demoCredentials(c.Upstream)
	return t, err
}

// demoCredentials fetches TURN credentials as the demo's page does.
func demoCredentials(upstream []string) (username, password string, err error) {
	if len(upstream) != 1 {
		return "", "", errors.New("that is no demo: it has not one upstream")
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(upstream[0] + demoConfigPath)
	if err != nil {
		return "", "", fmt.Errorf("ask the demo for TURN credentials: %w", err)
	}
	defer response.Body.Close()
	var config struct{ ICEServers []demo.ICEServer }
	if err := json.NewDecoder(io.LimitReader(response.Body, maxStatus)).Decode(&config); err != nil || len(config.ICEServers) == 0 {
		return "", "", errors.New("that is no demo: it gives no TURN credentials")
	}
	return config.ICEServers[0].Username, config.ICEServers[0].Credential, nil
}
