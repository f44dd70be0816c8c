package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSystemd does what the pages say, with their own words, on a host where
// NGINX serves Mattermost: the installation, the move, the way back, and ports
// that never close. Then the service is treated badly.
func TestSystemd(t *testing.T) {
	h := bootHost(t)
	h.equip()
	h.must(certbot + `
renew 1
rm -f /etc/nginx/sites-enabled/*
cp mattermost.conf /etc/nginx/sites-enabled/
printf '[Service]\nExecStart=true\n' >/etc/systemd/system/certbot.service
printf '[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n' >/etc/systemd/system/certbot.timer
systemctl start nginx`)
	h.install()
	h.move()
	h.certbotStays()
	h.neverClosed()
	h.ill()
	h.must(fence(t, "docs/nginx.md", "disable --now sallyport") + "curl -s -o /dev/null https://chat.example.com/; systemctl is-active nginx")
}

// equip brings what the pages take for granted.
func (h *host) equip() {
	t := h.t
	h.startMattermost()
	for name, content := range map[string]string{"sallyport": read(t, build(t)), "mattermost.conf": read(t, nginxConf)} {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(h.dir, "examples/systemd"), os.DirFS("systemd")); err != nil {
		t.Fatal(err)
	}
}

// certbot is a CA, and a renewal as certbot does it.
const certbot = `
[ -f ca.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=CA -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:TRUE 2>/dev/null
renew() {
	local archive=/etc/letsencrypt/archive/chat.example.com live=/etc/letsencrypt/live/chat.example.com
	[ -d $live ] || { mkdir -p $archive $live; chmod 0700 /etc/letsencrypt/archive /etc/letsencrypt/live; }
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=chat.example.com -keyout $archive/privkey$1.pem -out csr 2>/dev/null
	openssl x509 -req -in csr -CA ca.pem -CAkey ca.key -set_serial $1 -days 30 -out $archive/fullchain$1.pem -extfile <(echo subjectAltName=DNS:chat.example.com) 2>/dev/null
	chmod 0600 $archive/privkey$1.pem
	[ $1 = 1 ] || { chgrp --reference=$archive/privkey1.pem $archive/privkey$1.pem; chmod --reference=$archive/privkey1.pem $archive/privkey$1.pem; }
	for name in fullchain privkey; do ln -sfn ../../archive/chat.example.com/$name$1.pem $live/$name.pem; done
}
served() { openssl s_client -connect chat.example.com:443 -servername chat.example.com </dev/null 2>/dev/null | openssl x509 -noout -serial; }
`

// install follows examples/systemd, without what would touch the kernel or build.
func (h *host) install() {
	block := fence(h.t, "examples/systemd/README.md", "openssl rand -hex 32")
	block = regexp.MustCompile(`(?m)^(make build|sudo sysctl|sudo systemctl enable|journalctl).*\n`).ReplaceAllString(block, "")
	h.must(strings.ReplaceAll(block, "bin/sallyport ", "sallyport "))
}

// move follows docs/nginx.md up to the change.
func (h *host) move() {
	const page = "docs/nginx.md"
	write := func(name, content string) {
		h.must("mkdir -p " + filepath.Dir(name) + "\ncat >" + name + " <<'END'\n" + content + "END\n")
	}
	write("/etc/sallyport/config.yaml", fence(h.t, page, "# server_name"))
	write("/etc/systemd/system/sallyport.service.d/certificate.conf", fence(h.t, page, "LoadCredential=fullchain.pem"))
	h.must(fence(h.t, page, "sallyport check"))
	trial := h.must(fence(h.t, page, "trial.conf <<"))
	if n := strings.Count(trial, "2 200 39\n"); n != 2 {
		h.t.Errorf("NGINX and Sallyport answered:\n%s", trial)
	}
	// A machine under load may not have let go of the ports yet, and then it takes a second start.
	change, after, _ := strings.Cut(fence(h.t, page, "nginx -s quit"), "sudo sallyport doctor")
	_, _ = h.run(change)
	h.until("systemctl is-active -q sallyport")
	doctor, after, _ := strings.Cut(after, "\n")
	h.until("sudo sallyport doctor" + doctor + " >&2")
	h.must(after + "! systemctl is-active -q nginx\nss -lnt | grep -q :443")
}

// certbotStays follows it where the certificate remains certbot's.
func (h *host) certbotStays() {
	h.must(fence(h.t, "docs/nginx.md", "groupadd"))
	h.must(`
cp examples/systemd/config.yaml /etc/sallyport/config.yaml
cat >>/etc/sallyport/config.yaml <<'END'
tls:
  source: files
  cert_file: /etc/letsencrypt/live/chat.example.com/fullchain.pem
  key_file: /etc/letsencrypt/live/chat.example.com/privkey.pem
END
sudo systemctl restart sallyport
sudo sallyport check -config /etc/sallyport/config.yaml >/dev/null`)
	h.must("cd /; sallyport check >/dev/null; sallyport status | grep -q '^state *serving'") // without being told where it is
	h.must(certbot + "renew 2")
	h.must(certbot + `for i in $(seq 300); do [ "$(served)" = serial=02 ] && exit 0; sleep .1; done; served; exit 1`)
}

// neverClosed follows examples/systemd with its sockets: who comes while the
// service restarts is not refused.
func (h *host) neverClosed() {
	h.must(fence(h.t, "examples/systemd/README.md", "sallyport-*.socket"))
	out := h.must(`
for url in https://chat.example.com/ http://chat.example.com/; do
	(until [ -f enough ]; do curl -s --http1.1 -o /dev/null -w '%{http_code} %{errormsg}\n' $url; done) &
done >answers
systemctl restart sallyport
systemctl restart sallyport
touch enough; wait
sort answers | uniq -c`)
	if !regexp.MustCompile(`^ *\d+ 200 \n *\d+ 301 \n$`).MatchString(out) {
		h.t.Errorf("while the service restarted twice, the answers were:\n%s", out)
	}
}

// ill reloads what is broken, starts with it until somebody mends it, and stops
// the process as a deadlock would.
func (h *host) ill() {
	h.must(`
systemctl reload sallyport
echo 'listn: {}' >>/etc/sallyport/config.yaml
! systemctl reload sallyport 2>/dev/null
mkdir -p /run/systemd/system/sallyport.service.d
printf '[Service]\nWatchdogSec=2s\nRestartSec=100ms\n' >/run/systemd/system/sallyport.service.d/test.conf
systemctl daemon-reload
! systemctl restart sallyport 2>/dev/null`)
	h.until(`[ "$(systemctl show sallyport -p NRestarts --value)" -ge 6 ]`) // more than systemd would have by itself
	h.must("sed -i '$d' /etc/sallyport/config.yaml; curl -s -m 60 -o /dev/null https://chat.example.com/")
	h.must(`
systemctl restart sallyport
kill -STOP $(systemctl show sallyport -p MainPID --value)`)
	h.until(`[ "$(systemctl show sallyport -p NRestarts --value)" -ge 1 ] && curl -s -o /dev/null https://chat.example.com/`)
	if status := h.must("systemctl show sallyport -p StatusText"); !strings.Contains(status, "StatusText=serving: 0 WebSockets") {
		h.t.Error(status)
	}
}
