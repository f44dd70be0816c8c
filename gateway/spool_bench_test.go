package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkUploads is what a fast client pays for the spool: for its first MiB,
// and only for more than one.
func BenchmarkUploads(b *testing.B) {
	mm := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer mm.Close()
	for _, size := range []int{1 << 20, 2 << 20, 16 << 20} {
		for name, dir := range map[string]string{"off": "", "on": b.TempDir()} {
			b.Run(fmt.Sprintf("%dMiB/spool-%s", size>>20, name), func(b *testing.B) {
				p, err := benchProxy(mm.URL)
				if err != nil {
					b.Fatal(err)
				}
				s := *p.settings.Load()
				s.spool = defaultSpool()
				s.spool.Dir = dir
				p.use(&s)
				server := httptest.NewServer(p)
				defer server.Close()
				body := make([]byte, size)
				b.SetBytes(int64(size))
				for b.Loop() {
					resp, err := http.Post(server.URL+"/api/v4/files", "application/octet-stream", bytes.NewReader(body))
					if err != nil || resp.StatusCode != http.StatusOK {
						b.Fatal(resp, err)
					}
					_ = resp.Body.Close()
				}
			})
		}
	}
}
