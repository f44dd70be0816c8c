package tls

// Inspect looks at the files that cfg names as a server with that source would: an error if they are of no use, else what
// clients that want one of names will have against the certificate, "" if nothing.
func Inspect(cfg Config, names []string) (against string, err error) {
	pair, chain, _, err := readPair(cfg.CertFile, cfg.KeyFile)
	switch {
	case err != nil:
		return "", err
	case expired(pair.Leaf):
		return "it has expired", nil
	}
	return objection(chain, names, nil), nil
}
