package gateway

// Limits bounds what one client may do at a time. A client is an IPv4 address
// or the /64 of an IPv6 address: that of X-Forwarded-For or of a PROXY header
// where a trusted proxy speaks for it. A reload applies all of it.
type Limits struct {
	// Connections may be open at once on the HTTPS and HTTP ports. 0: any number.
	Connections int `koanf:"connections"`
	// Requests may be made in a second, in the long run. 0: any number.
	Requests int `koanf:"requests"`
	// RequestsBurst may be made at once by a client that was quiet before.
	RequestsBurst int `koanf:"requests_burst"`
	// Logins are requests that try a password, a token or a one-time code:
	// this many in a second, in the long run. 0: any number.
	Logins int `koanf:"logins"`
	// LoginsBurst may be made at once by a client that was quiet before.
	LoginsBurst int `koanf:"logins_burst"`
	// Exempt are networks (CIDR, or one address) without any of these limits,
	// in addition to proxy.trusted_proxies. The default is this machine, whose
	// clients are a proxy, a monitor or a benchmark.
	Exempt []string `koanf:"exempt"`
}

// defaultLimits has room for an office of 500 people behind one address who all
// come at nine o'clock: each loads the web app (some 100 requests) and logs in
// (the kind of login, the password, a mistyped one, the second factor).
func defaultLimits() Limits {
	return Limits{
		Connections: 8192,
		Requests:    1000, RequestsBurst: 60000,
		Logins: 5, LoginsBurst: 2000,
		Exempt: []string{"127.0.0.0/8", "::1"},
	}
}
