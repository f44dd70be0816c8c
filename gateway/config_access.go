package gateway

// Access says who may ask Mattermost for what, before Mattermost is asked. A
// reload applies all of it.
type Access struct {
	// Rules are about paths. The one with the longest path that a request is
	// at, or below, decides, whatever their order.
	Rules []AccessRule `koanf:"rules"`
	// PreauthSecretFile holds the secret that Mattermost's mobile and desktop
	// apps must send with every request ("pre-authentication secret").
	// Browsers cannot. Empty: nobody must.
	PreauthSecretFile string `koanf:"preauth_secret_file"`
	// PreviousPreauthSecretFile holds one that is still accepted.
	PreviousPreauthSecretFile string `koanf:"previous_preauth_secret_file"`
	// PreauthExempt are networks (CIDR, or one address) that need not send it.
	PreauthExempt []string `koanf:"preauth_exempt"`
}

// An AccessRule is about one path and all below it.
type AccessRule struct {
	// Path is decoded and without that of SiteURL; case does not count.
	Path string `koanf:"path"`
	// Allow are the networks (CIDR, or one address) whose clients get
	// through; empty: all.
	Allow []string `koanf:"allow"`
	// Deny are networks whose clients do not, even if Allow has them.
	Deny []string `koanf:"deny"`
}

func defaultAccess() Access {
	return Access{Rules: []AccessRule{}, PreauthExempt: []string{}}
}
