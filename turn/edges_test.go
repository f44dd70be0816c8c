package turn

import (
	"context"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// A packet of media costs no allocation of ours on its way from the client's
// socket to the SFU and back. crypto/tls makes one for each record that it reads,
// here for the server and for the client.
func TestMediaDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for transport, want := range map[string]float64{"udp": 0, "tcp": 0, "tls": 2} {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t, nil)
			tk := r.talk(transport, "alice")
			tk.allocate()
			tk.want(tk.bind(0x4000, testNamed), 0)
			frame := channelFrame(0x4000, append([]byte{2 << 6, 111}, make([]byte, 158)...))
			back := make([]byte, len(frame))
			_ = tk.conn.SetDeadline(time.Now().Add(testWait))
			echoed := func() {
				if _, err := tk.conn.Write(frame); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(tk.conn, back); err != nil {
					t.Fatal(err)
				}
			}
			for range 200 { // pools and buffers fill
				echoed()
			}
			if n := testing.AllocsPerRun(1000, echoed); n > want {
				t.Errorf("%v allocations per packet there and back, want %v", n, want)
			}
		})
	}
}

// keptListener yields connections that it remembers.
type keptListener struct {
	net.Listener
	conns chan net.Conn
}

func (l keptListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.conns <- c
	}
	return c, err
}

// A connection that carries media has all the options it needs, whoever of us
// set them last.
func TestServedSocketOptions(t *testing.T) {
	r := newRig(t, nil)
	s, err := New(Config{Realm: "example.com", RelayTo: []string{"sfu"}}, NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}}), Options{Secrets: [][]byte{[]byte(testSecret)}})
	if err != nil {
		t.Fatal(err)
	}
	ln := keptListener{listen(t), make(chan net.Conn, 1)}
	r.addr["tcp"] = ln.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx, []net.Listener{ln}, nil) }()
	r.talk("tcp", "alice").allocate()
	raw, err := (<-ln.conns).(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{
			syscall.TCP_NODELAY: 1, tcpNotSentLowat: kernelShare, tcpUserTimeout: int(vanished.Milliseconds()),
		} {
			if got, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option); err != nil || got != want {
				t.Errorf("option %d is %d, %v; want %d", option, got, err, want)
			}
		}
		if got, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE); err != nil || got != 1 {
			t.Errorf("keep-alive is %d, %v", got, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
