package gateway

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/sfu/rtcd"
	"sallyport/tls"
)

func TestReadSecrets(t *testing.T) {
	const secret = "0123456789abcdef"
	key := strings.Repeat("k", 32)
	files := map[string]string{
		"good": secret, "newline": secret + "\n", "crlf": secret + "\r\n", "two": secret + "\n\n",
		"short": secret[1:] + "\n", "empty": "", "long": strings.Repeat("x", 4097),
		"key": key + "\n", "key-short": key[1:], "key-long": strings.Repeat("k", 73), "key-most": strings.Repeat("k", 72),
	}
	read := func(name string) ([]byte, error) {
		if s, ok := files[name]; ok {
			return []byte(s), nil
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	for _, test := range []struct {
		current, previous, key string
		want                   []string // problems, or what was read
	}{
		{"good", "", "key", []string{secret, key}},
		{"newline", "good", "key-most", []string{secret, secret, files["key-most"]}},
		{"crlf", "two", "key", []string{secret, secret + "\n", key}},
		{"short", "empty", "key-short", []string{
			"turn.secret_file: short holds 15 bytes: a secret needs at least 16",
			"turn.previous_secret_file: empty holds 0 bytes: a secret needs at least 16",
			"sfu.api.clients[0].key_file: key-short holds 31 bytes: a secret needs at least 32",
		}},
		{"long", "", "key-long", []string{
			"turn.secret_file: long holds 4097 bytes: a secret has at most 4096",
			"sfu.api.clients[0].key_file: key-long holds 73 bytes: a secret has at most 72",
		}},
		{"absent", "", "", []string{
			"turn.secret_file: read secret: open absent: file does not exist",
			"sfu.api.clients[0].key_file: missing",
		}},
	} {
		t.Run(test.current, func(t *testing.T) {
			c := Default()
			c.TURN.SecretFile, c.TURN.PreviousSecretFile = test.current, test.previous
			c.SFU.API.Clients = []rtcd.Client{{ID: "a", KeyFile: test.key}}
			s, problems := ReadSecrets(c, read)
			var got []string
			for _, p := range problems {
				got = append(got, p.String())
			}
			for _, b := range s.TURN {
				got = append(got, string(b))
			}
			for _, b := range s.Clients {
				got = append(got, string(b))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestReadSecretsOnlyOfWhatIsOn(t *testing.T) {
	c := Default()
	c.TURN.Enabled = false
	c.SFU.Mode = ModeOff
	c.SFU.API.Clients = []rtcd.Client{{ID: "a", KeyFile: "x"}}
	_, problems := ReadSecrets(c, func(name string) ([]byte, error) { return nil, fmt.Errorf("%s was read", name) })
	if len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
}

func TestWarnings(t *testing.T) {
	keys := func(c Config) (all []string) {
		for _, p := range c.Warnings() {
			all = append(all, p.Key)
		}
		return all
	}
	c := Default()
	if got := keys(c); got != nil {
		t.Errorf("defaults: %v", got)
	}
	c.SFU.API.Listen, c.SFU.API.Store = ":8045", ""
	if diff := cmp.Diff([]string{"sfu.api.listen", "sfu.api.clients"}, keys(c)); diff != "" {
		t.Error(diff)
	}
	c.SFU.Mode = ModeOff
	if got := keys(c); got != nil {
		t.Errorf("off: %v", got)
	}
}

func TestEndlessSecretFileIsNotReadToTheEnd(t *testing.T) {
	c := Default()
	c.SFU.Mode = ModeOff
	c.TURN.SecretFile = "/dev/zero"
	_, problems := ReadSecrets(c, nil)
	want := []Problem{{"turn.secret_file", "read secret: /dev/zero is larger than 65536 bytes"}}
	if diff := cmp.Diff(want, problems); diff != "" {
		t.Error(diff)
	}
}

func TestReadAccountKey(t *testing.T) {
	files := map[string]string{"good": "c2VjcmV0\n", "bad": "not base64!", "empty": ""}
	for name, want := range map[string]string{
		"good":  "",
		"bad":   "tls.acme.eab.hmac_key_file: bad: the key is not base64",
		"empty": "tls.acme.eab.hmac_key_file: empty holds 0 bytes: a secret needs at least 1",
	} {
		c := Default()
		c.TURN.Enabled = false
		c.TLS.ACME.EAB = tls.EAB{KeyID: "kid", HMACKeyFile: name}
		s, problems := ReadSecrets(c, func(name string) ([]byte, error) { return []byte(files[name]), nil })
		got := ""
		for _, p := range problems {
			got += p.String()
		}
		if got != want || want == "" && string(s.EAB) != "c2VjcmV0" {
			t.Errorf("%s: key %q, problems %q, want %q", name, s.EAB, got, want)
		}
	}
}
