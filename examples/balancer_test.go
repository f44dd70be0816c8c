package examples

import (
	"os/exec"
	"strings"
	"testing"
)

// TestHAProxy puts HAProxy in front as docs/behind-a-balancer.md has it: what
// passes bytes through with PROXY headers of both versions, and what speaks HTTP.
func TestHAProxy(t *testing.T) {
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	}
	const page = "docs/behind-a-balancer.md"
	h := bootHost(t)
	h.equip()
	h.must("ip address add 10.0.0.10/32 dev lo; ip address add 198.51.100.7/32 dev lo\n" + certbot + "renew 1")
	h.install()
	h.must(`cat >/etc/sallyport/config.yaml <<'END'
` + strings.ReplaceAll(fence(t, page, "trusted_proxies: [10"), "10.0.0.0/24", "203.0.113.10/32") + `
listen: {https: "10.0.0.10:443", http: "", udp: "10.0.0.10:443"}
tls: {source: files, cert_file: /run/credentials/sallyport.service/fullchain.pem, key_file: /run/credentials/sallyport.service/privkey.pem}
admin: {listen: "10.0.0.10:9443"}
END
sed -i 's#/etc/sallyport/\(turn-secret\|rtcd-key\)$#/run/credentials/sallyport.service/\1#; s#\[203.0.113.10\]#[10.0.0.10]#' /etc/sallyport/config.yaml
mkdir -p /etc/systemd/system/sallyport.service.d
cat >/etc/systemd/system/sallyport.service.d/certificate.conf <<'END'
` + fence(t, "docs/nginx.md", "LoadCredential=fullchain.pem") + `END
systemctl daemon-reload
systemctl start sallyport
cat /etc/letsencrypt/live/chat.example.com/{fullchain,privkey}.pem >/etc/haproxy/chat.example.com.pem`)

	bytes := fence(t, page, "send-proxy-v2")
	for name, config := range map[string]string{
		"version 2": bytes, "version 1": strings.Replace(bytes, "send-proxy-v2", "send-proxy", 1), "HTTP": fence(t, page, "option forwardfor"),
	} {
		t.Run(name, func(t *testing.T) {
			config = strings.NewReplacer("bind :443", "bind 203.0.113.10:443", " check ", " source 203.0.113.10 check ",
				"/etc/ssl/certs/ca-certificates.crt", h.dir+"/ca.pem").Replace(config)
			h.must("cat >/etc/haproxy/haproxy.cfg <<'END'\n" + config + "END\nsystemctl restart haproxy")
			h.until(asClient + `| grep -q '"for":"   198.51.100.7"'`)
			h.must("curl -s -f -0 http://10.0.0.10:9443/healthz") // as HAProxy's check asks
		})
	}
	h.must(`sed -i 's/trusted_proxies: .*/trusted_proxies: []/' /etc/sallyport/config.yaml; systemctl reload sallyport`)
	h.must("cat >/etc/haproxy/haproxy.cfg <<'END'\n" + strings.Replace(bytes, "bind :443", "bind 203.0.113.10:443", 1) + "END\nsystemctl restart haproxy")
	h.must("! " + asClient)
	if log := h.must("journalctl -o cat --no-pager -u sallyport"); strings.Count(log, "PROXY header refused") != 1 || strings.Contains(log, `"ERROR"`) {
		t.Errorf("the log:\n%s", log)
	}
}

// asClient asks through HAProxy from an address of its own.
const asClient = "curl -s -H 'X-Forwarded-For: 192.0.2.66' --interface 198.51.100.7 https://chat.example.com/"
