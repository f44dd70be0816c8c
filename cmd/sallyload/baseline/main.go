// Command baseline is what sallyload compares Sallyport with: the SFU that
// anyone writes who follows the examples of pion/webrtc v3. Default
// interceptors, one TrackLocalStaticRTP for each published track, UDPMuxDefault
// and the default TCP mux. It speaks as much of the rtcd protocol as the
// participants of sallyload need and lets everybody in. It is a measuring rod,
// not a product: it is in no release.
//
//	baseline [-udp 127.0.0.1:0] [-tcp 127.0.0.1:0] [-api 127.0.0.1:0]
//
// It announces the address of its API in the line api=ADDRESS and ends with
// SIGTERM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v3"
)

const (
	tcpReadBuffer = 8       // packets, as the examples of pion/webrtc have it
	socketBuffer  = 4 << 20 // bytes; the kernel's default loses key frames
)

type addresses struct{ udp, tcp, api string }

func main() {
	var a addresses
	flag.StringVar(&a.udp, "udp", "127.0.0.1:0", "UDP address of the media")
	flag.StringVar(&a.tcp, "tcp", "127.0.0.1:0", "TCP address of the media")
	flag.StringVar(&a.api, "api", "127.0.0.1:0", "address of the rtcd API")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, a); err != nil {
		fmt.Fprintln(os.Stderr, "baseline:", err)
		os.Exit(1)
	}
}

// serve runs the SFU until ctx ends.
func serve(ctx context.Context, a addresses) error {
	udp, err := net.ListenPacket("udp4", a.udp)
	if err != nil {
		return fmt.Errorf("open media socket: %w", err)
	}
	defer udp.Close()
	if c, is := udp.(*net.UDPConn); is {
		_, _ = c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer)
	}
	tcp, err := net.Listen("tcp4", a.tcp)
	if err != nil {
		return fmt.Errorf("open media listener: %w", err)
	}
	defer tcp.Close()
	engine, err := newEngine(udp, tcp)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp4", a.api)
	if err != nil {
		return fmt.Errorf("open API listener: %w", err)
	}
	s := &sfu{api: engine, sessions: map[string]*session{}, calls: map[string]*call{}}
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Printf("api=%s\n", ln.Addr())
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve API: %w", err)
	}
	return nil
}

// newEngine configures pion as its examples do, and sets what a server on one
// port needs.
func newEngine(udp net.PacketConn, tcp net.Listener) (*webrtc.API, error) {
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		return nil, fmt.Errorf("register codecs: %w", err)
	}
	chain := &interceptor.Registry{}
	if err := webrtc.RegisterDefaultInterceptors(media, chain); err != nil {
		return nil, fmt.Errorf("register interceptors: %w", err)
	}
	var e webrtc.SettingEngine
	e.SetIncludeLoopbackCandidate(true)
	e.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeTCP4})
	e.SetICEUDPMux(webrtc.NewICEUDPMux(nil, udp))
	e.SetICETCPMux(webrtc.NewICETCPMux(nil, tcp, tcpReadBuffer))
	e.DisableActiveTCP(true)
	return webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(chain), webrtc.WithSettingEngine(e)), nil
}
