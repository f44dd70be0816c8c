package gateway

import (
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// zeros is an upload of n bytes that keeps an eye on the heap meanwhile.
type zeros struct {
	left  int64
	worst uint64 // bytes of heap in use
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	clear(p[:n])
	if z.left/(256<<20) != (z.left-n)/(256<<20) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		z.worst = max(z.worst, m.HeapInuse)
	}
	z.left -= n
	return int(n), nil
}

// An upload of several GB passes through a few buffers, with a spool and
// without: no file, no copy of it.
func TestUploadsOfSeveralGigabytes(t *testing.T) {
	if testing.Short() {
		t.Skip("moves gigabytes")
	}
	size := int64(3 << 30)
	up := startUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, strconv.FormatInt(n, 10))
	})
	rig := startProxy(t, func(c *Config) {
		c.Upstream = []string{up}
		c.Proxy.Spool.Dir = t.TempDir()
	})
	rig.spool.budget = time.Hour // this is a fast client, however busy the machine
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	// Without TLS, which would take most of the time; through a server nevertheless.
	plain := httptest.NewServer(rig.proxy)
	defer plain.Close()
	body := &zeros{left: size}
	r := request(t, http.MethodPost, plain.URL+"/api/v4/uploads/1", "")
	r.Body, r.ContentLength = io.NopCloser(body), size
	if _, got := ask(t, plain.Client(), r); got != strconv.FormatInt(size, 10) {
		t.Errorf("%s bytes of %d arrived", got, size)
	}
	if body.worst > before.HeapInuse+32<<20 {
		t.Errorf("%d MiB of heap in use, %d before", body.worst>>20, before.HeapInuse>>20)
	}
	if n := metric(rig.metrics.transfers.WithLabelValues(spoolUp)); n != 0 {
		t.Error("it was kept on disk")
	}
}
