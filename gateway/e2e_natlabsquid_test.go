package gateway_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
)

// The ports of squid, and the one user it knows.
const (
	squidOpen, squidLogin, squidInspect = 3128, 3129, 3130

	squidUser, squidPassword = "office", "open sesame"
)

// A squidHouse is a place from which nothing leads out but a Squid: it forwards
// no packets, and CONNECT goes to port 443 only.
type squidHouse struct {
	*router
	inspects error // why it cannot open TLS, nil if it can
}

// at is the way out over one of its ports.
func (s *squidHouse) at(port int) proxy {
	return proxy{from: s.client, address: net.JoinHostPort(s.inside.String(), strconv.Itoa(port))}
}

// startSquid skips the test where there is none.
func startSquid(t *testing.T, clients, server elsewhere) *squidHouse {
	t.Helper()
	if _, err := exec.LookPath("squid"); err != nil {
		t.Skip("SKIPPED, NOT TESTED: calls through an HTTP proxy: squid is missing: apt-get install squid-openssl")
	}
	s := &squidHouse{router: newRouter(t, clients, server, "")}
	dir, err := os.MkdirTemp("", "squid") // where its own user may look, unlike in t.TempDir
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := fmt.Sprintf(`
visible_hostname proxy
pid_filename none
cache deny all
cache_log /dev/null
access_log none
shutdown_lifetime 0 seconds
http_port %[2]s:%[3]d name=open
http_port %[2]s:%[4]d name=login
auth_param basic program /bin/sh %[1]s/login
acl login myportname login
acl known proxy_auth REQUIRED
acl https port 443
acl CONNECT method CONNECT
http_access deny CONNECT !https
http_access deny login !known
http_access allow all
`, dir, s.inside, squidOpen, squidLogin)
	// URL-encoded, as Squid asks for it.
	login := fmt.Sprintf("while read -r who; do if [ \"$who\" = '%s %s' ]; then echo OK; else echo ERR; fi; done\n", squidUser, url.PathEscape(squidPassword))
	if s.inspects = squidCA(dir); s.inspects == nil {
		config += fmt.Sprintf(`
http_port %[2]s:%[3]d ssl-bump generate-host-certificates=on tls-cert=%[1]s/ca.pem tls-key=%[1]s/ca.key
sslcrtd_program %[4]s -s %[1]s/certificates -M 4MB
tls_outgoing_options flags=DONT_VERIFY_PEER
sslproxy_cert_error allow all
ssl_bump stare all
ssl_bump bump all
`, dir, s.inside, squidInspect, squidCertificates)
	}
	must(t, os.WriteFile(filepath.Join(dir, "squid.conf"), []byte(config), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "login"), []byte(login), 0o644))
	must(t, openFor(dir, "proxy"))
	said := s.run(t, exec.Command("squid", "-N", "-d1", "-f", filepath.Join(dir, "squid.conf")))
	d := net.Dialer{}
	eventually(t, "squid", func() bool {
		var conn net.Conn
		err := clients.do(func() (err error) {
			conn, err = d.DialContext(t.Context(), "tcp", s.at(squidOpen).address)
			return err
		})
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("squid: %s", said)
		}
	})
	return s
}

const squidCertificates = "/usr/lib/squid/security_file_certgen"

// squidCA makes what Squid needs to open TLS. The CA stands in dir as ca.pem.
func squidCA(dir string) error {
	for _, command := range [][]string{
		{"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
			"-subj", "/CN=Inspection", "-keyout", filepath.Join(dir, "ca.key"), "-out", filepath.Join(dir, "ca.pem")},
		{squidCertificates, "-c", "-s", filepath.Join(dir, "certificates"), "-M", "4MB"},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s (the package is squid-openssl)", command[0], err, out)
		}
	}
	return nil
}

// openFor gives a directory to a user, if there is one of that name.
func openFor(dir, name string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	who, err := user.Lookup(name)
	if err != nil {
		return nil // a squid that is not Debian's
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			err = os.Chown(path, uid, gid)
		}
		return err
	})
}
