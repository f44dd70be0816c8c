package doctor

import "net/http"

// rejectReason is how Sallyport tells that it was not Mattermost who refused.
const rejectReason = "X-Reject-Reason"

// shutOut is for an answer of the access section, which may well be what it
// should be.
func shutOut(resp *http.Response) result {
	if resp.Header.Get(rejectReason) == "pre-auth" {
		return skipped("only apps with the pre-authentication secret get in").todo("to have this examined, name this machine's address in access.preauth_exempt")
	}
	return skipped("access.rules keep this machine out").todo("to have this examined, let its address in")
}
