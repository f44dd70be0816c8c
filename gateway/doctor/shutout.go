package doctor

import "net/http"

// rejectReason is how Sallyport tells that it was not Mattermost who refused.
const rejectReason = "X-Reject-Reason"

// shutOut is for an answer of the access section, which may well be what it
// should be.
func shutOut(resp *http.Response) result {
	switch resp.Header.Get(rejectReason) {
	case "pre-auth":
		return skipped("only apps with the pre-authentication secret get in").todo("to have this examined, name this machine's address in access.preauth_exempt")
	case "client-certificate":
		return skipped("only clients with a certificate get in (tls.client_auth)").todo("look with a browser that has one")
	}
	return skipped("access.rules keep this machine out").todo("to have this examined, let its address in")
}
