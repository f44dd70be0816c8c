package turn

import (
	"net"
	"net/netip"
	"time"

	"github.com/pion/stun"
)

// A talker speaks STUN by hand.
type talker struct {
	*rig
	conn               net.Conn
	packets            *clientConn
	username, password string
	realm, nonce, key  []byte
}

// talk connects and, for a user name, learns realm and nonce.
func (r *rig) talk(transport, user string) *talker {
	r.Helper()
	conn := r.dial(transport)
	tk := &talker{rig: r, conn: conn, packets: newClientConn(conn, transport)}
	if user != "" {
		tk.login(Credentials([]byte(testSecret), user, time.Now().Add(time.Hour)))
	}
	return tk
}

func (tk *talker) login(username, password string) {
	tk.Helper()
	tk.username, tk.password, tk.key = username, password, nil
	m := tk.do(stun.MethodAllocate, requestUDP)
	tk.want(m, stun.CodeUnauthorized)
	tk.realm, tk.nonce = attr(m, stun.AttrRealm), attr(m, stun.AttrNonce)
	if string(tk.realm) != "example.com" || len(tk.nonce) == 0 {
		tk.Fatalf("challenge has realm %q, nonce %q", tk.realm, tk.nonce)
	}
	tk.key = longTermKey(username, string(tk.realm), password)
}

var requestUDP = attribute(stun.AttrRequestedTransport, []byte{protocolUDP, 0, 0, 0})

func attr(m *stun.Message, t stun.AttrType) []byte {
	v, _ := m.Get(t)
	return append([]byte(nil), v...)
}

// build makes a request, signed if the talker is logged in.
func (tk *talker) build(method stun.Method, attrs ...stun.Setter) *stun.Message {
	tk.Helper()
	all := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)
	if tk.key != nil {
		all = append(all, stun.NewUsername(tk.username), stun.Realm(tk.realm), stun.Nonce(tk.nonce), stun.MessageIntegrity(tk.key))
	}
	m, err := stun.Build(append(all, stun.Fingerprint)...)
	if err != nil {
		tk.Fatal(err)
	}
	return m
}

// do sends a request and returns its answer.
func (tk *talker) do(method stun.Method, attrs ...stun.Setter) *stun.Message {
	tk.Helper()
	return tk.ask(tk.build(method, attrs...))
}

func (tk *talker) ask(m *stun.Message) *stun.Message {
	tk.Helper()
	tk.send(m.Raw)
	answer := tk.answer(m.TransactionID, testWait)
	if answer == nil {
		tk.Fatalf("no answer to %v", m)
	}
	return answer
}

func (tk *talker) send(b []byte) {
	tk.Helper()
	if _, err := tk.conn.Write(b); err != nil {
		tk.Fatal(err)
	}
}

// answer waits for the answer to a transaction, nil if there is none.
func (tk *talker) answer(id [12]byte, wait time.Duration) *stun.Message {
	tk.Helper()
	for end := time.Now().Add(wait); time.Now().Before(end); {
		b := tk.receive(time.Until(end))
		m := &stun.Message{Raw: b}
		if b != nil && m.Decode() == nil && m.TransactionID == id {
			return m
		}
	}
	return nil
}

// receive returns the next frame, nil if there is none.
func (tk *talker) receive(wait time.Duration) []byte {
	tk.Helper()
	_ = tk.conn.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 4096)
	n, _, err := tk.packets.ReadFrom(buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}

// want checks the error code of an answer, 0 for success.
func (tk *talker) want(m *stun.Message, code stun.ErrorCode) {
	tk.Helper()
	if got := codeOf(m); got != code {
		tk.Fatalf("%v answered %d, want %d", m.Type.Method, got, code)
	}
	if tk.key != nil && code != stun.CodeUnauthorized && code != stun.CodeStaleNonce {
		if err := stun.MessageIntegrity(tk.key).Check(m); err != nil {
			tk.Fatalf("answer %v: %v", m, err)
		}
	}
}

func codeOf(m *stun.Message) stun.ErrorCode {
	var code stun.ErrorCodeAttribute
	if m.Type.Class == stun.ClassSuccessResponse || code.GetFrom(m) != nil {
		return 0
	}
	return code.Code
}

func (tk *talker) allocate() {
	tk.Helper()
	tk.want(tk.do(stun.MethodAllocate, requestUDP), 0)
}

// allocateAs allocates as a user, whatever the realm.
func (tk *talker) allocateAs(user string) {
	tk.Helper()
	username, password := Credentials([]byte(testSecret), user, time.Now().Add(time.Hour))
	m := tk.do(stun.MethodAllocate, requestUDP)
	tk.realm, tk.nonce = attr(m, stun.AttrRealm), attr(m, stun.AttrNonce)
	tk.username, tk.password, tk.key = username, password, longTermKey(username, string(tk.realm), password)
	tk.allocate()
}

func (tk *talker) bind(number uint16, peer netip.AddrPort) *stun.Message {
	tk.Helper()
	return tk.do(stun.MethodChannelBind, attribute(stun.AttrChannelNumber, []byte{byte(number >> 8), byte(number), 0, 0}), xorAddress{stun.AttrXORPeerAddress, peer})
}

func (tk *talker) permit(peers ...netip.AddrPort) *stun.Message {
	tk.Helper()
	var attrs []stun.Setter
	for _, p := range peers {
		attrs = append(attrs, xorAddress{stun.AttrXORPeerAddress, p})
	}
	return tk.do(stun.MethodCreatePermission, attrs...)
}

// channelFrame returns ChannelData, padded.
func channelFrame(number uint16, data []byte) []byte {
	b := append([]byte{byte(number >> 8), byte(number), byte(len(data) >> 8), byte(len(data))}, data...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}
