// Tests of the page's modules that need no browser: node --test.

import { test } from 'node:test';
import assert from 'node:assert/strict';
import { deflateSync } from 'node:zlib';
import * as proto from '../page/protocol.mjs';
import * as paths from '../page/paths.mjs';
import { Sampler } from '../page/stats.mjs';
import { addPart, cameraParts, readSettings, screenParts } from '../page/video.mjs';

const hex = (text) => Uint8Array.from(Buffer.from(text, 'hex'));
const toHex = (bytes) => Buffer.from(bytes).toString('hex');

test('messages are encoded as JavaScript clients encode them', () => {
  assert.equal(toHex(proto.encode(proto.PING)), '01');
  assert.equal(toHex(proto.encode(proto.LOCK)), '07');
  assert.equal(toHex(proto.encode(proto.UNLOCK)), '08');
  assert.equal(toHex(proto.encode(proto.LOSS, 0)), '0400');
  assert.equal(toHex(proto.encode(proto.LOSS, 1)), '0401');
  assert.equal(toHex(proto.encode(proto.LOSS, 0.05)), '04cb3fa999999999999a');
  assert.equal(toHex(proto.encode(proto.RTT, 0.0123)), '05cb3f8930be0ded288d');
  assert.equal(toHex(proto.encode(proto.JITTER, 0.002)), '06cb3f60624dd2f1a9fc');
  assert.equal(toHex(proto.encode(proto.SDP, hex('aabb'))), '03c402aabb');
  assert.equal(toHex(proto.encode(proto.SDP, new Uint8Array(300)).slice(0, 4)), '03c5012c');
  assert.equal(toHex(proto.encode(proto.SDP, new Uint8Array(70000)).slice(0, 6)), '03c600011170');
});

test('messages of the server are decoded', () => {
  assert.deepEqual(proto.decode(hex('cc02')), { type: proto.PONG, payload: undefined });
  assert.deepEqual(proto.decode(hex('02')), { type: proto.PONG, payload: undefined });
  assert.equal(proto.decode(hex('cc07c3')).payload, true);
  assert.equal(proto.decode(hex('cc07c2')).payload, false);
  assert.equal(proto.decode(hex('cc04cb3fa999999999999a')).payload, 0.05);
  const map = (text) => Object.fromEntries(proto.readMediaMap(proto.decode(hex(text)).payload));
  assert.deepEqual(map('cc0980'), {});
  assert.deepEqual(map('cc0981a13182a474797065a5766f696365a973656e6465725f6964a57365737331'), { 1: { type: 'voice', sender: 'sess1' } });
  assert.deepEqual(
    map('cc0982a13182a474797065ac73637265656e2d617564696fa973656e6465725f6964a57365737342a13282a474797065a673637265656ea973656e6465725f6964a57365737342'),
    { 1: { type: 'screen-audio', sender: 'sessB' }, 2: { type: 'screen', sender: 'sessB' } },
  );
});

test('descriptions survive packing, and golden ones unpack', async () => {
  const offer = { type: 'offer', sdp: 'v=0\r\n'.repeat(500) };
  assert.deepEqual(await proto.unpack(await proto.pack(offer)), offer);
  for (const golden of ['03c420789cab562aa92c4855b252ca4f4b4b2d52d2512a4e2900f240642d0085a0090b', 'cc03c425789caa562aa92c4855b252ca4f4b4b2d52d2512a4e2950b20293b580000000ffff85a0090b']) {
    const { payload } = proto.decode(hex(golden));
    assert.deepEqual(await proto.unpack(payload), { type: 'offer', sdp: 'sdp' });
  }
});

test('malformed messages throw', async () => {
  for (const text of ['', 'd101', 'c0', 'ff', 'cc09df00000001', 'cc03c4ff00', 'cc0981'.repeat(8), `cc09${'91'.repeat(50)}01`, 'cc09a2ff']) {
    assert.throws(() => proto.decode(hex(text)), undefined, text);
  }
  await assert.rejects(proto.unpack(hex('616263')), 'not zlib');
  await assert.rejects(proto.unpack(deflateSync('{"type":"rollback","sdp":""}')));
  await assert.rejects(proto.unpack(deflateSync(Buffer.alloc(64 << 20, 0x20))), /too large/);
  assert.equal(proto.readMediaMap(null).size, 0);
  assert.equal(proto.readMediaMap(new Map([['1', 'voice']])).size, 0);
});

const UDP = 'candidate:1 1 udp 2130706431 192.0.2.9 8443 typ host ufrag abc';
const TCP = 'candidate:2 1 tcp 1671430143 192.0.2.9 8443 typ host tcptype passive ufrag abc';
const UDP443 = 'candidate:3 1 udp 2130706431 192.0.2.9 443 typ host';
const RELAY = 'candidate:4 1 udp 41885439 192.0.2.9 50001 typ relay raddr 0.0.0.0 rport 0';

test('a direct path keeps the candidates of its protocol and port, both ways', () => {
  const media = { udp: 8443, tcp: 8443 };
  const remote = (id) => [UDP, TCP, UDP443].map((line) => paths.keepRemote(paths.findPath(id), line, media));
  assert.deepEqual(remote('auto'), [true, true, true]);
  assert.deepEqual(remote('udp'), [true, false, false]);
  assert.deepEqual(remote('tcp'), [false, true, false]);
  const local = (id) => [UDP, TCP, RELAY].map((line) => paths.keepLocal(paths.findPath(id), line));
  assert.deepEqual(local('auto'), [true, true, true]);
  assert.deepEqual(local('udp'), [true, false, false]);
  assert.deepEqual(local('tcp'), [false, true, false]);
  assert.deepEqual(local('turn-tls'), [false, false, true]);
  const sdp = ['v=0', `a=${UDP}`, `a=${TCP}`, 'a=end-of-candidates', ''].join('\r\n');
  const kept = paths.filterSDP(sdp, (line) => paths.keepRemote(paths.findPath('tcp'), line, media));
  assert.equal(kept, ['v=0', `a=${TCP}`, 'a=end-of-candidates', ''].join('\r\n'));
});

test('a relayed path uses one TURN URL and nothing else', () => {
  const servers = [{ urls: ['turn:h:443?transport=udp', 'turn:h:443?transport=tcp', 'turns:h:443?transport=tcp'], username: 'u', credential: 'c' }];
  const urls = (id) => paths.iceConfiguration(paths.findPath(id), servers);
  assert.deepEqual(urls('turn-udp'), { iceServers: [{ ...servers[0], urls: ['turn:h:443?transport=udp'] }], iceTransportPolicy: 'relay' });
  assert.deepEqual(urls('turn-tcp').iceServers[0].urls, ['turn:h:443?transport=tcp']);
  assert.deepEqual(urls('turn-tls').iceServers[0].urls, ['turns:h:443?transport=tcp']);
  assert.deepEqual(urls('udp'), { iceServers: [], iceTransportPolicy: 'all' });
  assert.deepEqual(urls('auto'), { iceServers: servers, iceTransportPolicy: 'all' });
  assert.equal(paths.findPath('nonsense').id, 'auto');
  assert.equal(paths.turnPort('turns:[::1]:10443?transport=tcp'), 10443);
});

test('a pair is described by the door it goes through', () => {
  const relay = paths.describePath({ candidateType: 'relay', protocol: 'udp', relayProtocol: 'tls', url: 'turns:h:443?transport=tcp' }, { port: 8443, protocol: 'udp' });
  assert.equal(relay.id, 'turn-tls');
  assert.equal(relay.name, 'TURN/TLS 443');
  assert.equal(relay.remotePort, 8443);
  const direct = paths.describePath({ candidateType: 'prflx', protocol: 'tcp' }, { port: 8443, protocol: 'tcp' });
  assert.equal(direct.name, 'TCP 8443');
  assert.equal(direct.relayProtocol, '');
});

test('a sampler turns totals into rates', () => {
  const report = (bytes, lost, got) => new Map(Object.entries({
    T: { type: 'transport', selectedCandidatePairId: 'P' },
    P: { type: 'candidate-pair', localCandidateId: 'L', remoteCandidateId: 'R', bytesSent: bytes, bytesReceived: 2 * bytes, currentRoundTripTime: 0.02 },
    L: { type: 'local-candidate', candidateType: 'host', protocol: 'udp' },
    R: { type: 'remote-candidate', port: 8443, protocol: 'udp' },
    I: { type: 'inbound-rtp', kind: 'audio', mid: '1', packetsLost: lost, packetsReceived: got, jitter: 0.003 },
  }));
  const sampler = new Sampler();
  const first = sampler.sample(report(0, 0, 100), []);
  assert.equal(first.up, null);
  assert.equal(first.rtt, 0.02);
  const second = sampler.sample(report(1000, 5, 195), []);
  assert.ok(second.up > 0 && Math.abs(second.down / second.up - 2) < 1e-9);
  assert.equal(second.loss, 0.05);
  assert.equal(second.path.name, 'UDP 8443');
});

// browser stands in for what the page asks its browser about.
function browser(t, brand) {
  const codecs = ['video/VP8', 'video/rtx', 'video/AV1'].map((mimeType) => ({ mimeType }));
  const capabilities = { getCapabilities: () => ({ codecs }) };
  Object.assign(globalThis, { RTCRtpSender: capabilities, RTCRtpReceiver: capabilities });
  const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  Object.defineProperty(globalThis, 'navigator', { configurable: true, value: { userAgentData: { brands: [{ brand }] } } });
  t.after(() => {
    delete globalThis.RTCRtpSender;
    delete globalThis.RTCRtpReceiver;
    delete globalThis.navigator;
    if (before) Object.defineProperty(globalThis, 'navigator', before);
  });
}

test('settings are off unless asked for, and AV1 gives way to simulcast', (t) => {
  const read = (text) => readSettings(new URLSearchParams(text));
  assert.deepEqual(read('av1=1'), { dcSignaling: false, simulcast: false, av1: false }, 'a browser without AV1');
  browser(t, 'Chromium');
  assert.deepEqual(read(''), { dcSignaling: false, simulcast: false, av1: false });
  assert.deepEqual(read('dc=1&simulcast=0&av1=1'), { dcSignaling: true, simulcast: false, av1: true });
  assert.deepEqual(read('simulcast=1&av1=1'), { dcSignaling: false, simulcast: true, av1: false });
  browser(t, 'Gecko');
  assert.deepEqual(read('simulcast=1&av1=1'), { dcSignaling: false, simulcast: false, av1: true });
});

test('a share is VP8, its sound, and AV1; or VP8 in two layers', (t) => {
  browser(t, 'Chromium');
  const stream = { getVideoTracks: () => ['picture'], getAudioTracks: () => ['sound'] };
  const added = [];
  const pc = {
    addTransceiver(track, { direction, streams, sendEncodings }) {
      added.push({ track, direction, own: streams[0] === stream, rids: sendEncodings?.map(({ rid }) => rid) });
      return { sender: track, setCodecPreferences: (codecs) => { added.at(-1).codecs = codecs.map(({ mimeType }) => mimeType); } };
    },
  };
  const add = (parts) => parts.forEach((part) => assert.equal(addPart(pc, stream, part), part.track));
  const common = { track: 'picture', direction: 'sendrecv', own: true };
  const vp8 = { ...common, rids: [undefined], codecs: ['video/VP8'] };
  const av1 = { ...common, rids: [undefined], codecs: ['video/AV1'] };
  const sound = { ...common, track: 'sound', rids: undefined };
  add(screenParts(stream, { av1: true }));
  assert.deepEqual(added.splice(0), [vp8, sound, av1]);
  add(screenParts(stream, { simulcast: true }));
  assert.deepEqual(added.splice(0), [{ ...vp8, rids: ['l', 'h'] }, sound]);
  add(cameraParts(stream, { simulcast: true, av1: true }));
  assert.deepEqual(added.splice(0), [vp8, av1]);
});
