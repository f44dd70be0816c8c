// Package wire turns the messages of the rtcd protocol into bytes and back.
// It holds no state, opens nothing and imports nothing of ours.
//
// Two links carry these messages:
//
//	plugin  <── WebSocket, binary frames ──>  server     Envelope
//	                two MessagePack values: type string, payload map
//
//	client  <── data channel "calls-dc" ──>   server     ChannelMessage
//	                MessagePack type number, optional payload
//
// An envelope of type rtc or vad carries a Message, whose data is JSON text:
// a Description (an SDP offer or answer), a Candidate (of ICE) or the ID of a
// MediaStream. On the data channel a description is compressed with zlib.
//
// The bytes come from strangers: every decoder here takes time and memory
// linear in its input, recurses nowhere, and answers an error to anything it
// does not understand.
package wire
