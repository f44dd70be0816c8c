package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
)

// others are the permissions of everybody who is neither owner nor group.
const others fs.FileMode = 0o007

// checkSecrets looks at the files that hold secrets: readable by us, by nobody
// who should not, and with something of use in them.
func checkSecrets(_ context.Context, t *Target) result {
	if len(t.Secrets) == 0 {
		return skipped("the configuration names no secret file").
			todo("TURN and the Calls plugin need turn.secret_file and sfu.api.clients")
	}
	var open []string
	for _, s := range t.Secrets {
		info, err := os.Stat(s.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return failed("%s: %s does not exist", s.Key, s.Name).todo("create it, or correct %s", s.Key)
		case errors.Is(err, fs.ErrPermission):
			return failed("%s: %s cannot be read by this user", s.Key, s.Name).todo("run the doctor as the user that runs Sallyport")
		case err != nil:
			return failed("%s: %v", s.Key, err).todo("correct %s", s.Key)
		case s.Problem != "":
			return failed("%s: %s", s.Key, s.Problem).todo("correct the file: its whole content is the secret, one newline at the end aside")
		case info.Mode().IsRegular() && info.Mode()&others != 0:
			open = append(open, s.Name)
		}
	}
	if len(open) > 0 {
		names := strings.Join(open, " ")
		return warned("every user of this machine can read or write %s", names).todo("chmod o-rwx %s", names)
	}
	return passed("%d secret files, closed to other users", len(t.Secrets))
}

// checkReady asks the running process whether it wants traffic.
func checkReady(ctx context.Context, t *Target) result {
	if t.AdminURL == "" {
		return skipped("no admin listener is known").todo("set admin.listen")
	}
	c, done := direct()
	defer done()
	resp, body, err := get(ctx, c, t.AdminURL+"/readyz")
	switch {
	case err != nil:
		return unreachable(err, t.AdminURL, "admin.listen")
	case resp.StatusCode == http.StatusOK:
		return passed("the process serves")
	case resp.StatusCode == http.StatusServiceUnavailable:
		return failed("the process runs, but takes no traffic: %s", body).todo("a draining process waits for calls to end; a starting one for its first certificate: look into its log")
	}
	return failed("%s answers %s", t.AdminURL, resp.Status).todo("admin.listen leads to something that is not Sallyport")
}
