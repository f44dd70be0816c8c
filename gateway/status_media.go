package gateway

import "sallyport/gateway/admin"

// mediaStatus fills in what the SFU and TURN are doing.
func (g *Gateway) mediaStatus(s *admin.Status) {
	if g.sfu != nil {
		st := g.sfu.Status()
		s.Media = admin.Media{Enabled: true, Addresses: st.Addresses, Calls: len(st.Calls), Sessions: st.Sessions, Paths: map[string]int{}}
		for _, c := range st.Calls {
			for _, member := range c.Sessions {
				path := member.Path
				if path == "" {
					path = "connecting"
				}
				s.Media.Paths[path]++
			}
		}
	}
	if g.turn != nil {
		s.SelfTests = g.probe.status()
		st := g.turn.Status()
		s.TURN = admin.TURN{Enabled: true, Allocations: st.Allocations, Suspects: []admin.Suspect{}}
		for _, u := range st.Suspects {
			s.TURN.Suspects = append(s.TURN.Suspects, admin.Suspect(u))
		}
	}
}
