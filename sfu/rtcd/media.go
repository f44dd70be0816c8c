package rtcd

import (
	"sallyport/sfu"
	"sallyport/sfu/wire"
)

// media is what the front door needs of the SFU.
type media interface {
	Join(m sfu.Member, sig sfu.Signal) error
	Session(group, session string) session // nil if there is none
	Sessions(group, call string) ([]sfu.Member, error)
	Forget(group string)
}

// session is one participant's session in the SFU. No method blocks.
type session interface {
	Member() sfu.Member
	Describe(d wire.Description)
	Candidate(c wire.Candidate)
	Mute()
	Unmute()
	ScreenOn(streamID string)
	ScreenOff()
	VideoOn(streamID string)
	VideoOff()
	Leave()
	Signal() sfu.Signal
	Rebind(sig sfu.Signal)
}

// mediaServer makes a media of an *sfu.Server.
type mediaServer struct{ *sfu.Server }

func (m mediaServer) Join(member sfu.Member, sig sfu.Signal) error {
	_, err := m.Server.Join(member, sig)
	return err
}

func (m mediaServer) Session(group, id string) session {
	if s := m.Server.Session(group, id); s != nil {
		return s
	}
	return nil // a nil *sfu.Session would not be a nil session
}
