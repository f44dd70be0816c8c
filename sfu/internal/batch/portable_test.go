//go:build portable

package batch

import "testing"

// The build tag leaves nothing of the fast way.
func TestTheTagIsObeyed(t *testing.T) {
	if s := open(t, families[0], Options{}); s.fast != nil {
		t.Error("a socket takes the fast way")
	}
}
