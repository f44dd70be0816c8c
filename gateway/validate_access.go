package gateway

import (
	"fmt"
	"slices"
	"strings"
)

func (c Config) validateAccess(ps *problems) {
	a := c.Access
	for i, rule := range a.Rules {
		key := fmt.Sprintf("access.rules[%d]", i)
		if fault := pathFault(rule.Path); rule.Path == "" {
			ps.add(key+".path", "missing: write the path that the rule is about, like /admin_console")
		} else if fault != "" {
			ps.add(key+".path", "%s", fault)
		}
		same := func(r AccessRule) bool { return strings.EqualFold(r.Path, rule.Path) }
		if first := slices.IndexFunc(a.Rules, same); rule.Path != "" && first < i {
			ps.add(key+".path", "%q is already the path of access.rules[%d]: one rule for each path", rule.Path, first)
		}
		checkNetworks(ps, key+".allow", rule.Allow)
		checkNetworks(ps, key+".deny", rule.Deny)
	}
	switch file := a.PreauthSecretFile; {
	case file == "" && a.PreviousPreauthSecretFile != "":
		ps.add("access.preauth_secret_file", "missing: without it, access.previous_preauth_secret_file is not used")
	case file != "" && file == a.PreviousPreauthSecretFile:
		ps.add("access.previous_preauth_secret_file", "is the same file as access.preauth_secret_file: name the old secret's, or none")
	}
	checkNetworks(ps, "access.preauth_exempt", a.PreauthExempt)
}
