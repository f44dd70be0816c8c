//go:build !linux

package peer

import (
	"context"
	"errors"

	"github.com/pion/transport/v2"
)

type poller struct{}

func newPoller() (*poller, error) { return nil, errors.ErrUnsupported }

func (*poller) close() error { return nil }

// Run returns errors.ErrUnsupported: there is no Bulk but on Linux.
func (b *Bulk) Run(context.Context) error { return errors.ErrUnsupported }

// Sockets returns 0.
func (b *Bulk) Sockets() int { return 0 }

func (b *Bulk) network(*tally) transport.Net { return b.net }
