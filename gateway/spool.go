package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// spoolBudget is how long Mattermost may have to wait for the rest of a
	// transfer: a fifth of the 300 s it gives the whole.
	spoolBudget = 60 * time.Second
	// spoolStep is how many bytes lie between two looks at a transfer's pace.
	spoolStep = 1 << 20
	// spoolSmall is what streams in any case: below 28 kbit/s only it would
	// take Mattermost's 300 s. A file costs some of the time that so small an
	// upload takes, and little of a larger one's.
	spoolSmall = 1 << 20
)

var errSpoolFull = errors.New("spool is full")

// A spool keeps on disk what slow clients send or have not taken yet, so that
// Mattermost sees fast ones: its timeouts bound the whole of a request and of an
// answer.
//
//	upload:    client ─(slow)─> file ─(when the rest will come soon)─> Mattermost
//	download:  Mattermost ─(at once)─> file ─(slow)─> client
//
// Nothing depends on it: what finds no room streams, as everything does that is
// fast. A fast transfer is known by its first spoolStep bytes.
type spool struct {
	budget  time.Duration
	step    int64
	small   int64
	metrics *spoolMetrics
	logger  *slog.Logger

	complaints *rarely
	buffers    buffers
	used       atomic.Int64 // bytes in all files, or promised to them
}

func newSpool(m *spoolMetrics, logger *slog.Logger) *spool {
	return &spool{budget: spoolBudget, step: spoolStep, small: spoolSmall, metrics: m, logger: logger, complaints: newRarely()}
}

// refused tells that a transfer streams because of err.
func (s *spool) refused(dir string, err error) {
	reason := spoolBroken
	if errors.Is(err, errSpoolFull) {
		reason = spoolFull
	}
	s.metrics.refused.WithLabelValues(reason).Inc()
	if also, ok := s.complaints.allow(); ok {
		s.logger.Log(context.Background(), slog.LevelWarn, "slow transfers are not spooled", append([]any{"dir", dir, "err", err}, also...)...)
	}
}

// try looks whether dir can be used, and says so if not. Nothing else comes of it.
func (s *spool) try(dir string) {
	if dir == "" {
		return
	}
	f, err := openSpool(dir)
	if err != nil {
		s.logger.Warn("slow transfers are not spooled: proxy.spool.dir cannot be used", "dir", dir, "err", err)
		return
	}
	_ = f.Close()
}

// openSpool opens a new file in dir, which it makes if need be.
func openSpool(dir string) (*os.File, error) {
	f, err := openUnnamed(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return openUnnamed(dir)
}

// openRemoved is for file systems that have no unnamed files.
func openRemoved(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "spool-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// A spoolFile is one transfer's. It is written by one goroutine and read by one,
// which agree on how much there is.
type spoolFile struct {
	spool  *spool
	limits Spool
	file   *os.File

	size int64 // written; the writer's
	held int64 // of spool.used; the writer's until close

	closing sync.Once
}

// open makes a file for a transfer, unless there is no room at all.
func (s *spool) open(limits Spool) (*spoolFile, error) {
	file, err := openSpool(limits.Dir)
	if err != nil {
		return nil, err
	}
	f := &spoolFile{spool: s, limits: limits, file: file}
	if err := f.reserve(1); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// reserve makes room for n more bytes, in steps.
func (f *spoolFile) reserve(n int64) error {
	if f.size+n <= f.held {
		return nil
	}
	if f.size+n > f.limits.MaxFile {
		return fmt.Errorf("%w: proxy.spool.max_file is reached", errSpoolFull)
	}
	more := max(f.spool.step, n)
	if f.spool.used.Add(more) > f.limits.MaxTotal {
		f.spool.used.Add(-more)
		return fmt.Errorf("%w: proxy.spool.max_total is reached", errSpoolFull)
	}
	f.held += more
	if nearlyFull(f.file) {
		return fmt.Errorf("%w: less than a sixteenth of the file system is left", errSpoolFull)
	}
	return nil
}

// Write implements io.Writer. After an error the file is still good for what
// was written.
func (f *spoolFile) Write(p []byte) (int, error) {
	if err := f.reserve(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := f.file.WriteAt(p, f.size)
	f.size += int64(n)
	f.spool.metrics.bytes.Add(float64(n))
	return n, err
}

// readAt reads from off, before end of what was written.
func (f *spoolFile) readAt(p []byte, off, end int64) (int, error) {
	n, err := f.file.ReadAt(p[:min(int64(len(p)), end-off)], off)
	if err == io.EOF && n == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

// close gives the room back. Nobody may write any more.
func (f *spoolFile) close() {
	f.closing.Do(func() {
		_ = f.file.Close() // nothing of it is needed any more
		f.spool.used.Add(-f.held)
		f.spool.metrics.bytes.Sub(float64(f.size))
	})
}

// A pace tells whether the rest of a transfer will be through within the budget.
type pace struct {
	spool *spool
	total int64 // bytes of the whole
	slow  bool  // it was not, at one look

	began, last  time.Time
	marked, next int64 // bytes that had passed at last; that must have for the next look
}

func (s *spool) newPace(total int64) *pace {
	now := time.Now()
	return &pace{spool: s, total: total, began: now, last: now, next: s.step}
}

// due reports whether it is time for a look.
func (p *pace) due(done int64) bool { return done >= p.next }

// quick judges by the whole so far and by the latest step, whichever was slower.
func (p *pace) quick(done int64) bool {
	now := time.Now()
	perByte := max(now.Sub(p.began).Seconds()/float64(done), now.Sub(p.last).Seconds()/float64(done-p.marked))
	p.last, p.marked, p.next = now, done, done+p.spool.step
	if perByte*float64(p.total-done) <= p.spool.budget.Seconds() {
		return true
	}
	p.slow = true
	return false
}
