package tls

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// filesInterval is how often the files are looked at. Polling, because it
	// sees what notifications miss: renames, symbolic links, network mounts.
	filesInterval = 2 * time.Second

	// maxPEM bounds what is read from a certificate or key file, bytes.
	maxPEM = 1 << 20
)

// files serves the pair of two PEM files and follows their changes.
type files struct {
	log     *slog.Logger
	health  *health
	metrics *certMetrics
	every   time.Duration
	roots   *x509.CertPool // that clients have; nil = this machine's

	current atomic.Pointer[tls.Certificate]

	mu        sync.Mutex // guards the following; never held while a handshake waits
	cert, key string     // paths
	names     []string   // that clients want
	seen      [2]os.FileInfo
	content   [sha256.Size]byte // of the pair looked at last, good or bad
}

func newFiles(cfg Config, names []string, log *slog.Logger, h *health, m *certMetrics) (*files, error) {
	f := &files{log: log, health: h, metrics: m, every: filesInterval, names: names, cert: cfg.CertFile, key: cfg.KeyFile}
	pair, chain, sum, err := readPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	if expired(pair.Leaf) {
		log.Warn("certificate has expired", "file", cfg.CertFile, "not_after", pair.Leaf.NotAfter)
	}
	f.content = sum
	f.current.Store(pair)
	f.examine(chain)
	return f, nil
}

func (f *files) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.current.Load(), nil
}

func (f *files) certificates() []*tls.Certificate { return []*tls.Certificate{f.current.Load()} }

func (f *files) ready() <-chan struct{} { return closedChannel() }

func (f *files) run(ctx context.Context) {
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.poll()
		case <-ctx.Done():
			return
		}
	}
}

// reload reads the pair at the paths of cfg now, changed or not.
func (f *files) reload(cfg Config, names []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	pair, chain, sum, err := readPair(cfg.CertFile, cfg.KeyFile)
	if err == nil {
		err = f.replaces(pair, names)
	}
	if err != nil {
		f.failed(err)
		return err
	}
	f.cert, f.key, f.names = cfg.CertFile, cfg.KeyFile, names
	f.seen = [2]os.FileInfo{}
	f.use(pair, chain, sum)
	return nil
}

// poll takes the pair over if it changed and is good. A bad pair, for instance
// one of which only half is written, is logged and counted once and looked at
// again when it changes again.
func (f *files) poll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.touched() {
		return
	}
	pair, chain, sum, err := readPair(f.cert, f.key)
	if sum == f.content {
		return
	}
	f.content = sum
	if err == nil {
		err = f.replaces(pair, f.names)
	}
	if err != nil {
		f.failed(err)
		f.log.Error("certificate files are not usable, keeping the old certificate", "err", err)
		return
	}
	f.use(pair, chain, sum)
}

// touched reports whether either file may have changed since the last time.
func (f *files) touched() bool {
	touched := false
	for i, name := range []string{f.cert, f.key} {
		info, err := os.Stat(name)
		if err != nil {
			f.seen[i], touched = nil, true
			continue
		}
		old := f.seen[i]
		if old == nil || !os.SameFile(old, info) || old.Size() != info.Size() || !old.ModTime().Equal(info.ModTime()) {
			touched = true
		}
		f.seen[i] = info
	}
	return touched
}

// replaces reports why pair must not replace the current one: one that has
// expired, or is for another name, is worse than the one we have.
func (f *files) replaces(pair *tls.Certificate, names []string) error {
	now := f.current.Load().Leaf
	if expired(pair.Leaf) && !expired(now) {
		return fmt.Errorf("load certificate: expired at %s", pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	if name := uncovered(pair.Leaf, names); name != "" && uncovered(now, names) == "" {
		return fmt.Errorf("load certificate: it is not for %s", name)
	}
	return nil
}

// examine tells what clients will have against chain.
func (f *files) examine(chain []*x509.Certificate) {
	text := objection(chain, f.names, f.roots)
	f.health.advise(text)
	if text != "" {
		f.log.Warn("clients may refuse the certificate", "file", f.cert, "reason", text)
	}
}

func (f *files) use(pair *tls.Certificate, chain []*x509.Certificate, sum [sha256.Size]byte) {
	f.current.Store(pair)
	f.content = sum
	f.health.set("", nil, nil)
	f.log.Info("certificate loaded", "file", f.cert, "name", pair.Leaf.Subject.CommonName, "not_after", pair.Leaf.NotAfter)
	f.examine(chain)
}

func (f *files) failed(err error) {
	f.health.set("", err, nil)
	f.metrics.reloadFailures.Inc()
}

// readPair loads a certificate with its key, and its chain in order. The sum identifies what was read,
// also if it is no good; files that cannot be read count as empty.
func readPair(certFile, keyFile string) (*tls.Certificate, []*x509.Certificate, [sha256.Size]byte, error) {
	certPEM, certErr := readPEM(certFile)
	keyPEM, keyErr := readPEM(keyFile)
	a, b := sha256.Sum256(certPEM), sha256.Sum256(keyPEM)
	sum := sha256.Sum256(append(a[:], b[:]...))
	if certErr != nil {
		return nil, nil, sum, fmt.Errorf("read certificate: %w", certErr)
	}
	if keyErr != nil {
		return nil, nil, sum, fmt.Errorf("read key: %w", keyErr)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	var chain []*x509.Certificate
	if err == nil {
		chain, err = parseChain(&pair)
	}
	if err != nil {
		return nil, nil, sum, fmt.Errorf("load certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return &pair, chain, sum, nil
}

func readPEM(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxPEM {
		return nil, &os.PathError{Op: "read", Path: name, Err: errors.New("file too large")}
	}
	return b, nil
}

func expired(leaf *x509.Certificate) bool { return time.Now().After(leaf.NotAfter) }

func closedChannel() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
