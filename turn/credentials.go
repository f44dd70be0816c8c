package turn

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"strconv"
	"strings"
	"time"
)

// Credentials mints a time-limited TURN credential, in the form the Mattermost
// Calls plugin and coturn's use-auth-secret mint it: the user name is
// "<expiry as Unix seconds>:<user>", the password the base64 of the HMAC-SHA1 of that
// user name under secret. The server checks the expiry when an allocation is
// made and not again while it lasts. user may be empty or contain colons.
func Credentials(secret []byte, user string, expiry time.Time) (username, password string) {
	username = strconv.FormatInt(expiry.Unix(), 10) + ":" + user
	return username, passwordOf(secret, username)
}

// passwordOf returns the password that goes with a user name.
func passwordOf(secret []byte, username string) string {
	mac := hmac.New(sha1.New, secret)
	_, _ = io.WriteString(mac, username) // a hash's Write never fails
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// longTermKey returns the key of MESSAGE-INTEGRITY (RFC 8489 §9.2.2).
func longTermKey(username, realm, password string) []byte {
	sum := md5.Sum([]byte(username + ":" + realm + ":" + password))
	return sum[:]
}

// splitUsername takes a REST user name apart at its first colon; the rest may
// contain more of them. Without a colon, or with nothing behind it, all
// credentials with the same expiry share one user. ok is false if the name does
// not start with a time.
func splitUsername(username string) (expiry time.Time, user string, ok bool) {
	stamp, user, _ := strings.Cut(username, ":")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, "", false
	}
	if user == "" {
		user = username
	}
	return time.Unix(seconds, 0), user, true
}
