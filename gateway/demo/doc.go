// Package demo is the application that `sallyport demo` puts where Mattermost
// would stand: a page with a real call, and the little server behind it.
//
//	browser ──TLS 443──> gateway ──HTTP──> demo: the page, /demo/config, /demo/ws
//	   ║                                     │
//	   ║                                     │ rtcd API, as the Calls plugin speaks it
//	   ╚══ media, any of the six paths ══> SFU
//
// The server knows rooms and members. A room is a call of the SFU; a member is
// a browser with a session. What a browser says about itself (muted, sharing)
// is told to the others in its room and to the SFU; what the SFU says about a
// session (an answer, a candidate, somebody speaks) is passed on unread.
//
// It has the duties of the Calls plugin that the SFU relies on: session IDs of
// 26 characters, one screen sharer in a room, ten messages a second from a
// browser, and a leave when a browser is gone for longer than a short grace.
//
// The page behaves as the Calls plugin's web client does, with the settings that
// a Mattermost server would tell it in its query: ?dc=1 signals over the data
// channel, ?simulcast=1 shares the screen in two layers, ?av1=1 sends AV1 beside
// VP8. As there, all are off unless asked for.
package demo
