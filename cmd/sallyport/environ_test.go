package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway"
)

func TestLayers(t *testing.T) {
	file := "domain: file.example.com\nupstream: [http://10.0.0.1, http://10.0.0.2]\ntls:\nturn: {secret_file: /f, relay_to: [sfu, 10.0.0.9:8443]}\n"
	l := assemble("f", readDocument([]byte(file), "f"), []string{
		"SALLYPORT_DOMAIN=env.example.com",
		"SALLYPORT_TURN={secret_file: /e, enabled: true}",
		"SALLYPORT_UPSTREAM=http://10.0.0.3",
		"SALLYPORT_TLS__MIN_VERSION=1.3", // text, although it looks like a number
		"SALLYPORT_LISTEN__HTTP=",        // empty: off
		"SALLYPORT_SERVICE_HOST=10.96.0.1", "SALLYPORT_PORT_443_TCP_ADDR=10.96.0.1",
		"SALLYPORT_PORT=tcp://10.96.0.1:443", "OTHER=1",
	})
	if len(l.faults) > 0 {
		t.Fatal(complaints(l.faults))
	}
	want := gateway.Default()
	want.Domain = "env.example.com"
	want.Upstream = []string{"http://10.0.0.3"} // a list replaces, it does not merge
	want.Listen.HTTP = ""
	want.TLS.MinVersion = "1.3"                          // and the empty section kept the rest
	want.TURN.SecretFile = "/e"                          // a section merges
	want.TURN.RelayTo = []string{"sfu", "10.0.0.9:8443"} // from the file
	if diff := cmp.Diff(want, l.Config); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestBadEnvironment(t *testing.T) {
	good := []string{"SALLYPORT_DOMAIN=chat.example.com", "SALLYPORT_TURN__SECRET_FILE=/s"}
	for _, test := range []struct {
		name    string
		environ []string
		want    string
	}{
		{"unknown", []string{"SALLYPORT_TURN__SECRETFILE=/s"}, "environment SALLYPORT_TURN__SECRETFILE: no such key (did you mean SALLYPORT_TURN__SECRET_FILE?)\n"},
		{"one underscore", []string{"SALLYPORT_SFU_API_SELF_REGISTRATION=true"}, "environment SALLYPORT_SFU_API_SELF_REGISTRATION: no such key (did you mean SALLYPORT_SFU__API__SELF_REGISTRATION?)\n"},
		{"lower case", []string{"SALLYPORT_domain=x"}, "environment SALLYPORT_domain: no such key (did you mean SALLYPORT_DOMAIN?)\n"},
		{"nothing near", []string{"SALLYPORT_TELEPORT=1"}, "environment SALLYPORT_TELEPORT: no such key: a variable is SALLYPORT_ and the path of a key in upper case, with __ between levels\n"},
		{"index", []string{"SALLYPORT_SFU__API__CLIENTS__0__ID=a"}, "environment SALLYPORT_SFU__API__CLIENTS__0__ID: a list is set whole: SALLYPORT_SFU__API__CLIENTS='[…]'\n"},
		{"port is no service link", []string{"SALLYPORT_PORT=443"}, "environment SALLYPORT_PORT: no such key: a variable is SALLYPORT_ and the path of a key in upper case, with __ between levels\n"},
		{"conflict", []string{"SALLYPORT_TLS={source: selfsigned}", "SALLYPORT_TLS__SOURCE=acme", "SALLYPORT_TLS__ACME__EMAIL=a@example.com"},
			"environment SALLYPORT_TLS: conflicts with SALLYPORT_TLS__ACME__EMAIL: set one of the two\nenvironment SALLYPORT_TLS: conflicts with SALLYPORT_TLS__SOURCE: set one of the two\n"},
		{"duration", []string{"SALLYPORT_PROXY__HOLD=15"}, "environment SALLYPORT_PROXY__HOLD: 15 has no unit: use 15s, 2m or 4h\n"},
		{"number", []string{"SALLYPORT_TURN__MAX_ALLOCATIONS=lots"}, "environment SALLYPORT_TURN__MAX_ALLOCATIONS: expected a whole number, not the text \"lots\"\n"},
		{"empty number", []string{"SALLYPORT_TURN__MAX_ALLOCATIONS="}, "environment SALLYPORT_TURN__MAX_ALLOCATIONS: expected a whole number, not nothing\n"},
		{"flag", []string{"SALLYPORT_SFU__IPV6=on"}, "environment SALLYPORT_SFU__IPV6: expected true or false, not the text \"on\"\n"},
		{"list", []string{"SALLYPORT_PROXY__TRUSTED_PROXIES=10.0.0.0/8,10.1.0.0/16"}, "environment SALLYPORT_PROXY__TRUSTED_PROXIES: expected a list, like [a, b], not the text \"10.0.0.0/8,10.1.0.0/16\"\n"},
		{"section", []string{"SALLYPORT_LOG=debug"}, "environment SALLYPORT_LOG: expected keys and values, not the text \"debug\"\n"},
		{"key in section", []string{"SALLYPORT_LOG={levle: debug}"}, "environment SALLYPORT_LOG: unknown key \"levle\" (did you mean \"level\"?)\n"},
		{"syntax", []string{"SALLYPORT_LOG={level: debug"}, "environment SALLYPORT_LOG: not valid YAML: did not find expected ',' or '}'\n"},
		{"alias", []string{"SALLYPORT_TURN__RELAY_TO=[&a sfu, *a]"}, "environment SALLYPORT_TURN__RELAY_TO: turn.relay_to[0]: anchors, aliases and merge keys are not supported: write the value out\nenvironment SALLYPORT_TURN__RELAY_TO: turn.relay_to[1]: anchors, aliases and merge keys are not supported: write the value out\n"},
		{"validation", []string{"SALLYPORT_LOG__LEVEL=loud"}, "environment SALLYPORT_LOG__LEVEL: log.level: \"loud\" is not one of debug, info, warn, error\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := assemble("", document{}, append(slices.Clone(good), test.environ...))
			if diff := cmp.Diff(test.want, complaints(l.faults)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
