package gateway_test

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/pion/stun"

	"sallyport/turn"
)

// A talker speaks STUN to the shared port by hand, to say what no honest client
// would.
type talker struct {
	t    *testing.T
	conn net.Conn

	username, password string
	realm, nonce, key  []byte
}

// talkSTUN connects over tcp or tls.
func (x *target) talkSTUN(t *testing.T, transport string, protocols ...string) *talker {
	t.Helper()
	k := &talker{t: t}
	var err error
	if transport == "tls" {
		k.conn, err = dialTLS(within(t), "", x.HTTPS, protocols...)
	} else {
		k.conn, err = net.Dial("tcp", x.HTTPS)
	}
	must(t, err)
	_ = k.conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = k.conn.Close() })
	return k
}

// login becomes a user, once the server has said realm and nonce.
func (k *talker) login(user string) {
	k.t.Helper()
	k.username, k.password = turn.Credentials([]byte(e2eTURNSecret), user, time.Now().Add(time.Hour))
	k.key = nil
	m := k.allocate()
	k.want(m, stun.CodeUnauthorized)
	k.realm, k.nonce = value(m, stun.AttrRealm), value(m, stun.AttrNonce)
	sum := md5.Sum(fmt.Appendf(nil, "%s:%s:%s", k.username, k.realm, k.password)) // RFC 8489, 9.2.2
	k.key = sum[:]
}

func value(m *stun.Message, t stun.AttrType) []byte {
	v, _ := m.Get(t)
	return bytes.Clone(v)
}

func attribute(t stun.AttrType, v ...byte) stun.Setter {
	return stun.RawAttribute{Type: t, Value: v}
}

// overUDP is what every allocation must ask for.
var overUDP = attribute(stun.AttrRequestedTransport, 17, 0, 0, 0)

func (k *talker) allocate(more ...stun.Setter) *stun.Message {
	k.t.Helper()
	return k.ask(k.request(stun.MethodAllocate, append([]stun.Setter{overUDP}, more...)...))
}

// request makes one, signed once there was a login.
func (k *talker) request(method stun.Method, attributes ...stun.Setter) []byte {
	k.t.Helper()
	all := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attributes...)
	if k.key != nil {
		all = append(all, stun.NewUsername(k.username), stun.Realm(k.realm), stun.Nonce(k.nonce), stun.MessageIntegrity(k.key))
	}
	m, err := stun.Build(all...)
	must(k.t, err)
	return m.Raw
}

// ask sends a request and waits for its answer.
func (k *talker) ask(request []byte) *stun.Message {
	k.t.Helper()
	_, err := k.conn.Write(request)
	must(k.t, err)
	for {
		m := &stun.Message{Raw: k.frame()}
		if m.Raw[0]>>6 == 0 {
			must(k.t, m.Decode())
			if bytes.Equal(m.TransactionID[:], request[8:20]) {
				return m
			}
		}
	}
}

// frame reads the next STUN message or ChannelData.
func (k *talker) frame() []byte {
	k.t.Helper()
	b := make([]byte, 4)
	_, err := io.ReadFull(k.conn, b)
	must(k.t, err)
	rest := int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>6 == 0 {
		rest += 16
	}
	b = append(b, make([]byte, (rest+3)&^3)...)
	_, err = io.ReadFull(k.conn, b[4:])
	must(k.t, err)
	return b
}

// want checks the error code of an answer, 0 for success.
func (k *talker) want(m *stun.Message, code stun.ErrorCode) {
	k.t.Helper()
	var got stun.ErrorCodeAttribute
	if m.Type.Class == stun.ClassErrorResponse {
		must(k.t, got.GetFrom(m))
	}
	if got.Code != code {
		k.t.Errorf("%s is answered %d, want %d", m.Type.Method, got.Code, code)
	}
}

// lifetime is what an answer grants, in seconds.
func lifetime(m *stun.Message) uint32 {
	if v := value(m, stun.AttrLifetime); len(v) == 4 {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}
