// One participant's half of a call: the peer connection, its data channel and
// the rules by which the two sides change what they send each other.
//
//   join ack ─> offer with the data channel only ─> answer ─> channel opens
//   our change:     lock ─> granted ─> change ─> offer ─> answer ─> unlock
//   their change:   media map ─> offer ─> answer
//
// The server is the impolite side: an offer of ours that meets one of theirs is
// rolled back and made again (WebRTC calls that perfect negotiation).

import * as proto from './protocol.mjs';
import { filterSDP, iceConfiguration, keepLocal, keepRemote } from './paths.mjs';
import { addPart, cameraParts, screenParts } from './video.mjs';

const CONNECT_TIMEOUT_MS = 15_000;
const LOCK_TIMEOUT_MS = 5_000;
const LOCK_RETRY_MS = 50;
const ANSWER_TIMEOUT_MS = 10_000;
const PING_MS = 1_000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// A Call reports through its handlers: connected(), failed(text), media() when
// what arrives from others may have changed, iceError(event).
export class Call {
  offers = { sent: 0, received: 0 }; // counted for the console and the tests
  media = new Map(); // mid → {type, sender}: what the server says it sends us
  pingSeconds = null; // last data channel round trip

  #options;
  #handlers;
  #pc;
  #channel;
  #closed = false;
  #answered = false; // the first answer was applied
  #early = []; // candidates that came before it
  #arriving = Promise.resolve(); // messages are handled one after the other
  #changes = Promise.resolve(); // so are our own changes
  #lockReply = null;
  #answerReply = null;
  #voice = { sender: null, on: false };
  #screen = null; // {stream, senders}
  #camera = []; // its senders, once it has been on
  #timers = [];
  #pingAt = 0;

  // options: {path, config, settings, send(message)}
  constructor(options, handlers) {
    this.#options = options;
    this.#handlers = handlers;
    const ice = iceConfiguration(options.path, options.config.iceServers);
    this.turnURLs = ice.iceServers.flatMap((server) => server.urls);
    this.#pc = new RTCPeerConnection({ ...ice, bundlePolicy: 'max-bundle' });
    this.#pc.onnegotiationneeded = () => this.#offer();
    this.#pc.onicecandidate = ({ candidate }) => this.#localCandidate(candidate);
    this.#pc.onicecandidateerror = (event) => handlers.iceError?.(event);
    this.#pc.onconnectionstatechange = () => this.#stateChanged();
    this.#pc.ontrack = () => handlers.media();
    this.#openChannel();
    this.#timers.push(setTimeout(() => this.#fail('timeout'), CONNECT_TIMEOUT_MS));
  }

  get signalingState() {
    return this.#pc.signalingState;
  }

  get connectionState() {
    return this.#pc.connectionState;
  }

  stats() {
    return this.#pc.getStats();
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#timers.forEach((timer) => clearTimeout(timer));
    this.#lockReply?.(false);
    this.#answerReply?.reject(new Error('the call was left'));
    this.#channel.close();
    this.#pc.close();
  }

  // receive takes what the server sent over the WebSocket: an offer, an answer
  // or {type: 'candidate', candidate}.
  receive(signal) {
    if (signal.type === 'candidate') this.#inOrder(() => this.#remoteCandidate(signal.candidate));
    else this.#inOrder(() => this.#description(signal));
  }

  // remotes lists what arrives from the others: [{mid, type, sender, track}].
  remotes() {
    const out = [];
    for (const transceiver of this.#pc.getTransceivers()) {
      const entry = transceiver.mid === null ? undefined : this.media.get(transceiver.mid);
      const { track } = transceiver.receiver;
      if (!entry || track.readyState !== 'live') continue;
      out.push({ mid: transceiver.mid, type: entry.type, sender: entry.sender, track });
    }
    return out;
  }

  // setVoice sends the track, or nothing when it is null. Only the first track
  // needs a negotiation: muting is a sender without a track.
  async setVoice(track) {
    if (this.#voice.sender) {
      await this.#voice.sender.replaceTrack(track);
    } else if (track) {
      await this.#change(() => {
        this.#voice.sender = this.#pc.addTrack(track, new MediaStream([track]));
      });
    }
    if ((track !== null) !== this.#voice.on) {
      this.#voice.on = track !== null;
      this.#options.send({ type: track ? 'unmute' : 'mute' });
    }
  }

  // startScreen announces the stream, then adds what it is sent as.
  async startScreen(stream) {
    const screen = { stream, senders: [] };
    this.#screen = screen;
    this.#options.send({ type: 'screen_on', stream: stream.id });
    await this.#addParts(stream, screenParts(stream, this.#options.settings), screen.senders);
  }

  async stopScreen() {
    const screen = this.#screen;
    this.#screen = null;
    if (!screen || this.#closed) return;
    try {
      await this.#change(() => screen.senders.forEach((sender) => this.#pc.removeTrack(sender)));
    } finally {
      this.#options.send({ type: 'screen_off' });
    }
  }

  // startCamera adds the picture the first time; later only the track is put
  // back, so that nothing has to be negotiated.
  async startCamera(stream) {
    const parts = cameraParts(stream, this.#options.settings);
    const known = this.#camera.length;
    await this.#replaceCamera(parts[0].track);
    await this.#addParts(stream, parts.slice(known), this.#camera);
    this.#options.send({ type: 'video_on', stream: stream.id });
  }

  async stopCamera() {
    await this.#replaceCamera(null);
    this.#options.send({ type: 'video_off' });
  }

  // report tells the SFU how the call goes here; unknown values stay unsaid.
  report({ loss, rtt, jitter }) {
    if (loss !== null && loss >= 0) this.#say(proto.LOSS, loss);
    if (rtt > 0) this.#say(proto.RTT, rtt);
    if (jitter > 0) this.#say(proto.JITTER, jitter);
  }

  async #replaceCamera(track) {
    await Promise.all(this.#camera.map((sender) => sender.replaceTrack(track)));
  }

  // #addParts makes one change for each part; what was added is in senders even
  // if a later one fails.
  async #addParts(stream, parts, senders) {
    for (const part of parts) await this.#change(() => senders.push(addPart(this.#pc, stream, part)));
  }

  #openChannel() {
    const channel = this.#pc.createDataChannel('calls-dc');
    channel.binaryType = 'arraybuffer';
    channel.onmessage = ({ data }) => this.#channelMessage(data);
    channel.onopen = () => {
      this.#timers.push(setInterval(() => this.#ping(), PING_MS));
    };
    this.#channel = channel;
  }

  #ping() {
    if (this.#pingAt === 0) this.#pingAt = performance.now();
    this.#say(proto.PING);
  }

  #say(type, payload) {
    if (this.#channel.readyState !== 'open') return false;
    this.#channel.send(proto.encode(type, payload));
    return true;
  }

  #channelMessage(data) {
    if (typeof data === 'string') return;
    let message;
    try {
      message = proto.decode(new Uint8Array(data));
    } catch (error) {
      console.warn('data channel:', error.message);
      return;
    }
    switch (message.type) {
      case proto.PONG:
        if (this.#pingAt > 0) this.pingSeconds = (performance.now() - this.#pingAt) / 1000;
        this.#pingAt = 0;
        break;
      case proto.LOCK:
        this.#lockReply?.(message.payload === true);
        break;
      case proto.SDP: // the map before it must be in force first, hence the order
        this.#inOrder(async () => this.#description(await proto.unpack(message.payload)));
        break;
      case proto.MEDIA_MAP:
        this.#inOrder(() => this.#mapChanged(proto.readMediaMap(message.payload)));
        break;
    }
  }

  #mapChanged(media) {
    this.media = media;
    this.#handlers.media();
  }

  #inOrder(step) {
    this.#arriving = this.#arriving.then(async () => {
      if (this.#closed) return;
      try {
        await step();
      } catch (error) {
        if (!this.#closed) console.warn('signalling:', error);
      }
    });
  }

  // #change makes one change of what we send, under the server's lock, and
  // resolves when the server has answered it.
  #change(mutate) {
    const result = this.#changes.then(async () => {
      await this.#lock();
      const answered = new Promise((resolve, reject) => {
        this.#answerReply = { resolve, reject };
      });
      const timer = setTimeout(() => this.#answerReply?.reject(new Error('the server did not answer')), ANSWER_TIMEOUT_MS);
      try {
        mutate();
        await answered;
      } catch (error) {
        this.#say(proto.UNLOCK);
        throw error;
      } finally {
        clearTimeout(timer);
        this.#answerReply = null;
      }
    });
    this.#changes = result.catch(() => {});
    return result;
  }

  async #lock() {
    const deadline = performance.now() + LOCK_TIMEOUT_MS;
    while (performance.now() < deadline && !this.#closed) {
      if (this.#answered && this.#say(proto.LOCK)) {
        const granted = await Promise.race([
          new Promise((resolve) => {
            this.#lockReply = resolve;
          }),
          sleep(deadline - performance.now()).then(() => false),
        ]);
        this.#lockReply = null;
        if (granted) return;
      }
      await sleep(LOCK_RETRY_MS);
    }
    throw new Error(this.#closed ? 'the call was left' : 'the server is busy');
  }

  async #offer() {
    if (this.#closed || this.#pc.signalingState !== 'stable') return; // asked again once it is
    try {
      await this.#pc.setLocalDescription();
      if (this.#closed || this.#pc.localDescription.type !== 'offer') return;
      this.offers.sent++;
      await this.#sendDescription(this.#pc.localDescription);
    } catch (error) {
      if (!this.#closed) console.warn('offer:', error);
    }
  }

  async #sendDescription({ type, sdp }) {
    const { path, settings, send } = this.#options;
    const description = { type, sdp: filterSDP(sdp, (line) => keepLocal(path, line)) };
    if (settings.dcSignaling && this.#answered && this.#channel.readyState === 'open') {
      this.#say(proto.SDP, await proto.pack(description));
    } else {
      send({ type: 'sdp', data: description });
    }
  }

  async #description({ type, sdp }) {
    const { path, config } = this.#options;
    const description = { type, sdp: filterSDP(sdp, (line) => keepRemote(path, line, config.media)) };
    if (type === 'offer') {
      this.offers.received++;
      await this.#pc.setRemoteDescription(description);
      await this.#flushCandidates();
      await this.#pc.setLocalDescription();
      await this.#sendDescription(this.#pc.localDescription);
    } else {
      if (this.#pc.signalingState !== 'have-local-offer') return; // answers an offer we rolled back
      await this.#pc.setRemoteDescription(description);
      await this.#flushCandidates();
      if (this.#answered) this.#say(proto.UNLOCK);
      this.#answered = true;
      this.#answerReply?.resolve();
    }
    this.#handlers.media();
  }

  #localCandidate(candidate) {
    if (!candidate?.candidate || !keepLocal(this.#options.path, candidate.candidate)) return;
    this.#options.send({ type: 'ice', data: candidate.toJSON() });
  }

  async #remoteCandidate(candidate) {
    if (!candidate?.candidate || !keepRemote(this.#options.path, candidate.candidate, this.#options.config.media)) return;
    if (!this.#pc.remoteDescription) {
      this.#early.push(candidate);
      return;
    }
    await this.#addCandidate(candidate);
  }

  async #addCandidate({ candidate, sdpMid, sdpMLineIndex }) {
    const mid = sdpMid || null; // some servers write an empty mid; the index then says it
    await this.#pc.addIceCandidate({ candidate, sdpMid: mid, sdpMLineIndex: sdpMLineIndex ?? (mid === null ? 0 : null) });
  }

  async #flushCandidates() {
    for (const candidate of this.#early.splice(0)) await this.#addCandidate(candidate);
  }

  #stateChanged() {
    if (this.#closed) return;
    const state = this.#pc.connectionState;
    if (state === 'connected') {
      clearTimeout(this.#timers[0]);
      this.#handlers.connected();
    }
    if (state === 'failed' || state === 'closed') this.#fail('failed');
  }

  #fail(reason) {
    if (this.#closed) return;
    this.#handlers.failed(reason);
  }
}
