package peer

import (
	"context"
	"fmt"

	"github.com/pion/webrtc/v3"
)

// An Allocation is a relayed address at a TURN server and nothing else: what a
// participant has who does not speak.
type Allocation struct{ gatherer *webrtc.ICEGatherer }

// Allocate gets an allocation on the way that c's Path, ICEServers and what goes
// with them say. The caller closes it.
func Allocate(ctx context.Context, c Config) (*Allocation, error) {
	c.complete()
	servers, err := c.Path.servers(c.ICEServers)
	if err != nil {
		return nil, err
	}
	options := webrtc.ICEGatherOptions{ICEGatherPolicy: webrtc.ICETransportPolicyRelay, ICEServers: forPion(servers)}
	g, err := webrtc.NewAPI(webrtc.WithSettingEngine(settings(&c))).NewICEGatherer(options)
	if err != nil {
		return nil, fmt.Errorf("allocate over %s: %w", c.Path, err)
	}
	a := &Allocation{g}
	gathered := make(chan bool, 1)
	g.OnLocalCandidate(func(c *webrtc.ICECandidate) {
		select {
		case gathered <- c != nil:
		default: // a second one, or the end after the first
		}
	})
	if err = g.Gather(); err == nil {
		select {
		case got := <-gathered:
			if got {
				return a, nil
			}
			err = ErrNoRelay
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	_ = a.Close()
	return nil, fmt.Errorf("allocate over %s: %w", c.Path, err)
}

// Close gives the address back.
func (a *Allocation) Close() error { return a.gatherer.Close() }

func forPion(servers []ICEServer) (all []webrtc.ICEServer) {
	for _, s := range servers {
		all = append(all, webrtc.ICEServer{URLs: s.URLs, Username: s.Username, Credential: s.Credential})
	}
	return all
}
