package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/gateway"
	"sallyport/sfu/rtcd"
)

// dirVariable names the directory of a gateway's secrets to a child of the test,
// which then is that gateway.
const dirVariable = "SALLYLOAD_TEST_GATEWAY"

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirVariable); dir != "" {
		if err := serveGateway(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	dir, err := os.MkdirTemp("", "sallyload")
	if err == nil {
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// prepare makes the secrets, and has this process trust the certificate.
func prepare(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		BasicConstraintsValid: true, IsCA: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"cert":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		"key":    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"turn":   []byte("a secret that the Calls plugin knows"),
		"client": []byte("0123456789abcdef0123456789abcdef"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	if err := os.Setenv("SSL_CERT_FILE", filepath.Join(dir, "cert")); err != nil {
		return err
	}
	return os.Setenv("SALLYLOAD_TEST_DIR", dir)
}

// serveGateway runs a gateway on free ports until SIGTERM.
func serveGateway(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg := gateway.Default()
	cfg.Proxy.Spool.Dir = ""
	cfg.Domain = "localhost"
	cfg.Listen = gateway.Listen{HTTPS: "127.0.0.1:0", UDP: "127.0.0.1:0"}
	cfg.TLS.Source = gateway.SourceFiles
	cfg.TLS.CertFile, cfg.TLS.KeyFile = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	cfg.TURN.SecretFile = filepath.Join(dir, "turn")
	cfg.SFU.UDP, cfg.SFU.TCP = "127.0.0.1:0", "127.0.0.1:0"
	cfg.SFU.API = rtcd.Config{Listen: "127.0.0.1:0", Clients: []rtcd.Client{{ID: "sallyload", KeyFile: filepath.Join(dir, "client")}}}
	cfg.Admin.Listen, cfg.Admin.Socket = "127.0.0.1:0", ""
	cfg.Drain.Timeout = 0
	g, err := gateway.New(cfg, gateway.Options{Logger: slog.New(slog.NewJSONHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	return g.Run(ctx)
}

// gatewayTarget is a target that is a gateway of its own in each run, and the
// flags to get in.
func gatewayTarget(t *testing.T) (name string, flags []string) {
	t.Helper()
	dir := os.Getenv("SALLYLOAD_TEST_DIR")
	t.Setenv(dirVariable, dir)
	return "'" + os.Args[0] + "'", []string{
		"-auth-key-file", filepath.Join(dir, "client"), "-turn-secret-file", filepath.Join(dir, "turn"),
		"-turn", "turn:{udp}?transport=udp,turn:{https}?transport=tcp,turns:{https}?transport=tcp",
		"-ramp", "10ms", "-warm", "200ms",
	}
}

// Every road into the gateway carries the load, with a screen on it.
func TestPaths(t *testing.T) {
	name, flags := gatewayTarget(t)
	for _, path := range []string{"udp", "tcp", "turn-udp", "turn-tcp", "turn-tls"} {
		t.Run(path, func(t *testing.T) {
			status, r, stderr := command(t.Context(), t, append(flags, "-path", path, "-calls", "1", "-users", "3", "-unmuted", "1", "-screen", "-duration", "2s", name)...)
			if status != 0 {
				t.Fatalf("status %d: %s", status, stderr)
			}
			p := r.Packets
			if r.Tracks.Got != 4 || p.Loss > 1 || p.Foreign != 0 || p.Expected != 2*p.Sent {
				t.Errorf("tracks %+v, packets %+v", r.Tracks, p)
			}
			counted := path == "udp" || path == "turn-udp"
			if some := p.Verified < p.Received && p.Verified > 0; some != counted {
				t.Errorf("%d of %d packets verified", p.Verified, p.Received)
			}
			if r.LatencyUS.P99 <= 0 || r.Server == nil || r.Server.PeakMiB < r.Server.MemoryMiB || r.Server.CPUSeconds <= 0 {
				t.Errorf("latency %+v, server %+v", r.LatencyUS, r.Server)
			}
			if r.Video.Tracks == 0 || r.Video.Seconds > 2 {
				t.Errorf("video %+v", r.Video)
			}
			for way := range r.Paths {
				if !strings.HasPrefix(way, path+" ") {
					t.Errorf("paths %v", r.Paths)
				}
			}
		})
	}
}

// When a target cannot be measured, what was measured before is still printed.
func TestCompareFailsLate(t *testing.T) {
	name, flags := gatewayTarget(t)
	status, stdout, stderr := text(t, append(flags, "-compare", "-runs", "1", "-calls", "1", "-users", "2", "-unmuted", "1", "-path", "udp",
		"-duration", "1s", name, "/does/not/exist")...)
	if status != 1 || !strings.Contains(stderr, "start target") || !strings.Contains(stdout, "| 1x2x1 | A |") {
		t.Errorf("status %d: %s\n%s", status, stderr, stdout)
	}
}

// Two targets get the same load in turn; the JSON has every run, the table the
// medians, and the profiles are where they were asked for.
func TestCompare(t *testing.T) {
	name, flags := gatewayTarget(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "out.json")
	status, stdout, stderr := text(t, append(flags, "-compare", name, name, "-runs", "2", "-names", "one,two", "-calls", "1", "-users", "2", "-unmuted", "1", "-path", "udp",
		"-duration", "1s", "-json", file, "-profile", dir)...)
	if status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
	}
	for _, want := range []string{"| 1x2x1 | one |", "| 1x2x1 | two |", "| 1x2x1 | *ratio* |", "Medians of 2 runs"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in the table:\n%s", want, stdout)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var c Comparison
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Loads) != 1 || len(c.Loads[0].Runs) != 2 || len(c.Loads[0].Runs[0]) != 2 || len(c.Loads[0].Runs[1]) != 2 {
		t.Fatalf("runs: %s", b)
	}
	if !strings.Contains(c.Machine, " CPUs") || !strings.Contains(stdout, c.Machine) {
		t.Errorf("machine %q", c.Machine)
	}
	m, x := c.Loads[0].Medians, c.Loads[0].Ratios
	if m[0].PerSecond < 25 || m[1].CPUPerOut <= 0 || x == nil || x.CPUPerOut == nil || *x.CPUPerOut != m[0].CPUPerOut/m[1].CPUPerOut {
		t.Errorf("medians %+v %+v, ratios %+v", m[0], m[1], x)
	}
	if !strings.Contains(stderr, "2 joined, 0 failed, 1 of 1 tracks") || m[0].LeaveP95 <= 0 || c.Loads[0].Runs[0][0].Leaves.Failed != 0 {
		t.Errorf("%s\nleaves %+v", stderr, c.Loads[0].Runs[0][0].Leaves)
	}
	for name := range profiles {
		if info, err := os.Stat(filepath.Join(dir, "1x2x1", name+".pprof")); err != nil || info.Size() == 0 {
			t.Errorf("profile %s: %v", name, err)
		}
	}
}
