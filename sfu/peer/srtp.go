package peer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/webrtc/v3"
)

// SRTP is a choice of protection profiles (RFC 5764 section 4.1.2, RFC 7714
// section 14.2). The zero SRTP is AnySRTP.
type SRTP uint8

// The choices.
const (
	AnySRTP SRTP = iota // what browsers offer: both of the others
	GCM                 // AEAD_AES_128_GCM
	AESCM               // AES128_CM_HMAC_SHA1_80
)

var srtpNames = [...]string{"any", "gcm", "aes-cm"}

// String returns the name that Set accepts.
func (s SRTP) String() string {
	if int(s) < len(srtpNames) {
		return srtpNames[s]
	}
	return "SRTP " + strconv.Itoa(int(s))
}

// Set parses a name, so that an *SRTP is a flag.Value.
func (s *SRTP) Set(name string) error {
	i := slices.Index(srtpNames[:], name)
	if i < 0 {
		return fmt.Errorf("unknown SRTP %q: want one of %s", name, strings.Join(srtpNames[:], ", "))
	}
	*s = SRTP(i)
	return nil
}

// offer makes connections offer the choice; the numbers are IANA's.
func (s SRTP) offer(e *webrtc.SettingEngine) {
	switch s {
	case GCM:
		e.SetSRTPProtectionProfiles(0x0007)
	case AESCM:
		e.SetSRTPProtectionProfiles(0x0001)
	}
}
