// What a Calls client sends of pictures, and the settings that decide it.
//
//   camera                  VP8, and AV1 beside it if that is on
//   screen                  likewise, with the sound between the two
//   screen with simulcast   VP8 twice in one: l and h, of the same size
//
// AV1 is a transceiver of its own in the same MediaStream: who cannot decode it
// gets VP8.

const CAMERA = [{ maxBitrate: 1_000_000, maxFramerate: 30 }];
const SCREEN = [{ maxBitrate: 1_000_000, maxFramerate: 10 }];
const SCREEN_LAYERS = [ // lowest first
  { rid: 'l', maxBitrate: 500_000, maxFramerate: 5, scaleResolutionDownBy: 1 },
  { rid: 'h', maxBitrate: 2_500_000, maxFramerate: 20, scaleResolutionDownBy: 1 },
];

// readSettings takes from the page's query what a Mattermost server tells its
// clients: ?dc=1 signalling over the data channel, ?simulcast=1 and ?av1=1. As
// there, all are off by default, and AV1 gives way to simulcast.
export function readSettings(query) {
  const on = (name) => query.get(name) === '1';
  const simulcast = on('simulcast') && isChromium();
  return { dcSignaling: on('dc'), simulcast, av1: on('av1') && !simulcast && findCodec(globalThis.RTCRtpReceiver, 'AV1').length > 0 };
}

// cameraParts and screenParts list what a stream is sent as, in the order in
// which it is added: [{track, codec, encodings}].
export function cameraParts(stream, { av1 }) {
  const [track] = stream.getVideoTracks();
  const parts = [{ track, codec: 'VP8', encodings: CAMERA }];
  if (av1) parts.push({ track, codec: 'AV1', encodings: CAMERA });
  return parts;
}

export function screenParts(stream, { simulcast, av1 }) {
  const [track] = stream.getVideoTracks();
  const parts = [{ track, codec: 'VP8', encodings: simulcast ? SCREEN_LAYERS : SCREEN }];
  for (const sound of stream.getAudioTracks()) parts.push({ track: sound });
  if (av1) parts.push({ track, codec: 'AV1', encodings: SCREEN });
  return parts;
}

// addPart adds one of them to the connection and returns its sender.
export function addPart(pc, stream, { track, codec, encodings }) {
  const init = { direction: 'sendrecv', streams: [stream] };
  if (encodings) init.sendEncodings = encodings.map((encoding) => ({ ...encoding }));
  const transceiver = pc.addTransceiver(track, init);
  const only = codec ? findCodec(globalThis.RTCRtpSender, codec) : [];
  if (only.length > 0) transceiver.setCodecPreferences?.(only);
  return transceiver.sender;
}

function findCodec(direction, name) {
  const all = direction?.getCapabilities?.('video')?.codecs ?? [];
  return all.filter(({ mimeType }) => mimeType.toLowerCase() === `video/${name.toLowerCase()}`);
}

// isChromium: the clients send layers from there only.
function isChromium() {
  return globalThis.navigator?.userAgentData?.brands.some(({ brand }) => brand === 'Chromium') ?? false;
}
