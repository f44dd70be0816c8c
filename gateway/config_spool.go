package gateway

import "path/filepath"

// Spool bounds what is kept on disk of slow transfers.
type Spool struct {
	// Dir is where it is kept, in files without a name that end with the
	// process. Not a file system in memory. Empty: nothing is kept.
	Dir string `koanf:"dir"`
	// MaxFile is how many bytes of one request or answer are kept.
	MaxFile int64 `koanf:"max_file"`
	// MaxTotal is how many bytes are kept in all. What does not fit streams.
	MaxTotal int64 `koanf:"max_total"`
}

func defaultSpool() Spool {
	return Spool{Dir: "/var/lib/sallyport/spool", MaxFile: 1 << 30, MaxTotal: 4 << 30}
}

func (s Spool) validate(ps *problems) {
	if s.Dir == "" {
		return
	}
	if !filepath.IsAbs(s.Dir) {
		ps.add("proxy.spool.dir", "%q is not an absolute path", s.Dir)
	}
	if s.MaxFile < spoolStep {
		ps.add("proxy.spool.max_file", "%d is below %d: for no spool at all set proxy.spool.dir to \"\"", s.MaxFile, spoolStep)
	}
	if s.MaxTotal < s.MaxFile {
		ps.add("proxy.spool.max_total", "%d is below proxy.spool.max_file, %d", s.MaxTotal, s.MaxFile)
	}
}
