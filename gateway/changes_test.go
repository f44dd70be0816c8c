package gateway

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/sfu/rtcd"
)

func TestChangesAreWrittenAsInTheFile(t *testing.T) {
	for want, edit := range map[string]func(*Config){
		`tls.hsts: 4380h -> 0s`:                      func(c *Config) { c.TLS.HSTS = 0 },
		`drain.timeout: 2h -> 1h30m`:                 func(c *Config) { c.Drain.Timeout = 90 * time.Minute },
		`proxy.max_body: 0 -> 1048576`:               func(c *Config) { c.Proxy.MaxBody = 1 << 20 },
		`sfu.ipv6: false -> true`:                    func(c *Config) { c.SFU.IPv6 = true },
		`listen.udp: :443 -> ""`:                     func(c *Config) { c.Listen.UDP = "" },
		`domain: "" -> "a b"`:                        func(c *Config) { c.Domain = "a b" },
		`turn.realm: "" -> "a\nlevel=ERROR"`:         func(c *Config) { c.TURN.Realm = "a\nlevel=ERROR" },
		`tls.names: [] -> [a.example, b.example]`:    func(c *Config) { c.TLS.Names = []string{"a.example", "b.example"} },
		`turn.secret_file: "" -> /etc/s/turn-secret`: func(c *Config) { c.TURN.SecretFile = "/etc/s/turn-secret" },
		`sfu.api.clients: [] -> [{id: mattermost, key_file: /k}]`: func(c *Config) {
			c.SFU.API.Clients = []rtcd.Client{{ID: "mattermost", KeyFile: "/k"}}
		},
	} {
		next := Default()
		edit(&next)
		all := changes(Default(), next)
		if len(all) != 1 || all[0].String() != want {
			t.Errorf("got %v, want %s", all, want)
		}
	}
}

// TestNoValueIsSecret: values are logged, so a secret is in a file that a key
// names. What looks like a secret by its key must be the name of one.
func TestNoValueIsSecret(t *testing.T) {
	secret := regexp.MustCompile(`secret|password|token|key`)
	harmless := regexp.MustCompile(`_file$|_id$|_type$|_name$|_algorithm$`)
	var walk func(reflect.Type, string)
	walk = func(s reflect.Type, path string) {
		for i := range s.NumField() {
			name, _, _ := strings.Cut(s.Field(i).Tag.Get("koanf"), ",")
			of := s.Field(i).Type
			if of.Kind() == reflect.Slice {
				of = of.Elem()
			}
			switch {
			case of.Kind() == reflect.Struct:
				walk(of, path+name+".")
			case secret.MatchString(name) && !harmless.MatchString(name):
				t.Errorf("%s%s: is this a secret?", path, name)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
}

// A secret that was replaced in its file is named, and not shown.
func TestReloadTellsOfNewSecrets(t *testing.T) {
	files := map[string]string{"turn-secret": testTURNSecret, "client-key": testClientKey}
	g := startGatewayWith(t, nil, func(o *Options) {
		o.ReadFile = func(name string) ([]byte, error) {
			if content, ok := files[name]; ok {
				return []byte(content), nil
			}
			return nil, os.ErrNotExist
		}
	})
	reload := func(want ...string) {
		t.Helper()
		got, err := g.Reload(g.config())
		if err != nil {
			t.Fatal(err)
		}
		var applied []string
		for _, c := range got.Applied {
			applied = append(applied, c.String())
		}
		if d := cmp.Diff(want, applied); d != "" || len(got.Restart) > 0 {
			t.Errorf("-want +got:\n%s%v", d, got.Restart)
		}
	}
	reload()
	files["client-key"] = strings.Repeat("k", 40)
	reload("sfu.api.clients[0].key_file: new content of client-key")
	files["turn-secret"] = strings.Repeat("t", 40)
	reload("turn.secret_file: new content of turn-secret")
	reload()
}
