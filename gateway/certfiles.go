package gateway

import (
	"errors"
	"io/fs"
	"os"

	"sallyport/tls"
)

// InspectCertificate looks at the files of tls.source: files, as New does. With
// faults New fails. That a file does not exist is a warning: a configuration is
// often checked before, or elsewhere than, it is used.
func InspectCertificate(c Config) (faults, warnings []Problem) {
	if c.TLS.Source != SourceFiles {
		return nil, nil
	}
	var missing problems
	for _, f := range []SecretFile{{"tls.cert_file", c.TLS.CertFile}, {"tls.key_file", c.TLS.KeyFile}} {
		if _, err := os.Stat(f.Name); errors.Is(err, fs.ErrNotExist) {
			missing.add(f.Key, "%s does not exist", f.Name)
		}
	}
	if len(missing) > 0 {
		return nil, missing
	}
	var ps problems
	against, err := tls.Inspect(c.TLS, append([]string{c.Domain}, c.TLS.Names...))
	if err != nil {
		ps.add("tls.cert_file", "%v", err)
		return ps, nil
	}
	if against != "" {
		ps.add("tls.cert_file", "clients may refuse the certificate: %s", against)
	}
	return nil, ps
}
