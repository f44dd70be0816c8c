package gateway

import "testing"

// StandIn starts what plays Mattermost, for tests from outside, and returns its
// URL.
func StandIn(t *testing.T) (url string) { return startMattermost(t).url() }

// Witness starts an upstream that keeps every byte it gets; take returns what
// came since the last time.
func Witness(t *testing.T) (url string, take func() string) {
	w := startWitness(t)
	return "http://" + w.ln.Addr().String(), w.take
}

// MalformedRequests are those that two servers could understand differently, as
// they are sent, by name.
func MalformedRequests() map[string]string {
	all := map[string]string{}
	for name, request := range malformedRequests {
		all[name] = onWire(request)
	}
	return all
}

// BigFile is what the stand-in serves as /api/v4/files/big.
func BigFile() []byte { return bigFile() }
