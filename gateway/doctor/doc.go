// Package doctor examines an installation from outside, as its users meet it:
// it resolves the name, looks at the certificate, opens a WebSocket, relays
// through TURN, and makes a call over each path.
//
//	Target ──> Run ──┬── a list of named checks, all at once,   ──> Report
//	                 └── each with a deadline of its own             text or JSON
//
// The words: a Target says where everything is and holds no secret but
// short-lived credentials and the key of one rtcd client; a check answers one
// question with PASS, WARN, FAIL or SKIP, one line of text and, unless it
// passed, what to do; the Report is the answers in the order of the list.
//
// A fault should be told once. A check that cannot ask its question for a
// reason that is another's business is skipped, and says whose. And only
// tls.certificate judges the certificate: the others talk to whoever answers.
// They send nothing that must not be overheard: TURN passwords and keys of
// rtcd never travel over these connections.
//
// The doctor changes nothing and talks to the Target's own addresses only,
// beside the system's resolver. It follows no redirect and no proxy variable.
// Its calls are between two participants of its own, in a call nobody else is
// in.
//
// Of ours it imports client halves only: turn.Probe and sfu/peer. It is the one
// package beside tls that uses crypto/tls, because an examiner must not share
// the code of the examined.
package doctor
