package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"

	"sallyport/sfu/wire"
)

const (
	linkQueue    = 4096             // envelopes waiting to be written
	linkMessage  = 1 << 20          // bytes of an incoming frame
	writeTimeout = 10 * time.Second // for one frame
	// silence is how long the server may say nothing at all. It pings every
	// 10 s, so three of its pings are missing by then.
	silence = 35 * time.Second
)

var (
	// ErrClosed means that the link or peer was closed from this side.
	ErrClosed = errors.New("closed")
	// ErrSlow means that the other side did not keep up with what was sent.
	ErrSlow = errors.New("send queue is full")
	// ErrSilent means that the server stopped answering without closing.
	ErrSilent = errors.New("server went silent")
)

// LinkConfig says how to reach an rtcd API.
type LinkConfig struct {
	// URL is the base of the API, http://host:port or https://host:port. User
	// and password in it serve as ClientID and AuthKey if those are empty. The
	// path is ignored.
	URL string
	// ClientID and AuthKey are the installation's credentials.
	ClientID, AuthKey string
	// NoRegister keeps Dial from registering the client when connecting fails.
	NoRegister bool
	// Handle is called for each envelope, in order, from the goroutine that
	// reads the link. It must not block and must not close the link. nil
	// discards them.
	Handle func(wire.Envelope)
	// HTTPClient makes the requests; its Transport may trust a private CA. nil
	// means http.DefaultClient.
	HTTPClient *http.Client
	// Logger takes what the server sent wrong. nil discards.
	Logger *slog.Logger
}

// A Link is the plugin's connection to the rtcd API. It owns a reading and a
// writing goroutine, both gone when Done is closed.
type Link struct {
	config LinkConfig
	conn   *websocket.Conn
	queue  chan wire.Envelope
	quiet  *time.Timer // closes the link when it fires
	done   chan struct{}

	ctx    context.Context // of the connection's life, for its reads and writes
	cancel context.CancelCauseFunc
}

// Dial connects to the API. When that fails it registers the client once and
// tries again, as the plugin does, unless NoRegister is set.
func Dial(ctx context.Context, c LinkConfig) (*Link, error) {
	base, err := c.complete()
	if err != nil {
		return nil, err
	}
	l := &Link{config: c, queue: make(chan wire.Envelope, linkQueue), done: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.quiet = time.AfterFunc(silence, func() { l.cancel(ErrSilent) })
	err = l.connect(ctx, base)
	if err != nil && !c.NoRegister && ctx.Err() == nil {
		if regErr := c.register(ctx, base); regErr != nil {
			err = errors.Join(err, regErr)
		} else {
			err = l.connect(ctx, base)
		}
	}
	if err != nil {
		l.quiet.Stop()
		l.cancel(err)
		return nil, err
	}
	go l.run()
	return l, nil
}

// complete fills in what c leaves open and returns the API's address.
func (c *LinkConfig) complete() (*url.URL, error) {
	base, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("parse rtcd URL: %w", err)
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("rtcd URL %q: want http://host:port or https://host:port", base.Redacted())
	}
	if u := base.User; u != nil && c.ClientID == "" {
		c.ClientID = u.Username()
		c.AuthKey, _ = u.Password()
	}
	base.User = nil
	if c.Handle == nil {
		c.Handle = func(wire.Envelope) {}
	}
	if c.HTTPClient == nil {
		c.HTTPClient = http.DefaultClient
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return base, nil
}

func (l *Link) connect(ctx context.Context, base *url.URL) error {
	request := &http.Request{Header: http.Header{}}
	request.SetBasicAuth(l.config.ClientID, l.config.AuthKey)
	conn, _, err := websocket.Dial(ctx, base.ResolveReference(&url.URL{Path: "/ws"}).String(), &websocket.DialOptions{
		HTTPClient: l.config.HTTPClient,
		HTTPHeader: request.Header,
		OnPingReceived: func(context.Context, []byte) bool {
			l.quiet.Reset(silence)
			return true
		},
	})
	if err != nil {
		return fmt.Errorf("connect to rtcd API %s: %w", base.Host, err)
	}
	conn.SetReadLimit(linkMessage)
	l.conn = conn
	return nil
}

func (c *LinkConfig) register(ctx context.Context, base *url.URL) error {
	body, err := json.Marshal(map[string]string{"clientID": c.ClientID, "authKey": c.AuthKey})
	if err != nil {
		return fmt.Errorf("register with rtcd API: %w", err)
	}
	address := base.ResolveReference(&url.URL{Path: "/register"}).String()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("register with rtcd API: %w", err)
	}
	request.SetBasicAuth(c.ClientID, c.AuthKey)
	request.Header.Set("Content-Type", "application/json")
	response, err := c.HTTPClient.Do(request)
	if err != nil {
		return fmt.Errorf("register with rtcd API: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		reply, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("register with rtcd API: %s: %s", response.Status, bytes.TrimSpace(reply))
	}
	return nil
}

// run owns the connection: it reads until that ends and then waits for the
// writer.
func (l *Link) run() {
	var writer sync.WaitGroup
	writer.Go(l.write)
	l.cancel(l.read())
	l.quiet.Stop()
	writer.Wait()
	l.conn.CloseNow()
	close(l.done)
}

func (l *Link) read() error {
	for {
		kind, frame, err := l.conn.Read(l.ctx)
		if err != nil {
			return fmt.Errorf("read rtcd link: %w", err)
		}
		l.quiet.Reset(silence)
		if kind != websocket.MessageBinary {
			continue
		}
		e, err := wire.Decode(frame)
		if err != nil {
			l.config.Logger.Debug("envelope ignored", "err", err)
			continue
		}
		l.config.Handle(e)
	}
}

func (l *Link) write() {
	var frame []byte
	for {
		select {
		case <-l.ctx.Done():
			return
		case e := <-l.queue:
			var err error
			if frame, err = e.Append(frame[:0]); err != nil {
				l.config.Logger.Debug("envelope not sent", "err", err)
				continue
			}
			ctx, cancel := context.WithTimeout(l.ctx, writeTimeout)
			err = l.conn.Write(ctx, websocket.MessageBinary, frame)
			cancel()
			if err != nil {
				l.cancel(fmt.Errorf("write rtcd link: %w", err))
				return
			}
		}
	}
}

// Send queues an envelope; it never blocks. A full queue closes the link with
// ErrSlow, since a gap in signalling cannot be repaired. The error is why the
// link ended.
func (l *Link) Send(e wire.Envelope) error {
	if l.ctx.Err() != nil {
		return fmt.Errorf("send %s: %w", e.Type, context.Cause(l.ctx))
	}
	select {
	case l.queue <- e:
		return nil
	default:
		l.cancel(ErrSlow)
		return fmt.Errorf("send %s: %w", e.Type, ErrSlow)
	}
}

// Close ends the link and returns when its goroutines have ended. Envelopes
// still queued are lost.
func (l *Link) Close() error {
	l.cancel(ErrClosed)
	<-l.done
	return nil
}

// Done is closed when the link has ended for any reason.
func (l *Link) Done() <-chan struct{} { return l.done }

// Err returns why the link ended: ErrClosed after Close, nil while it lives.
func (l *Link) Err() error { return context.Cause(l.ctx) }
