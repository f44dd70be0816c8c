// Numbers from getStats: what the panel shows, what the SFU is told every ten
// seconds, and what the console (window.sallyport.stats()) answers.

import { describePath } from './paths.mjs';

// A Sampler turns successive reports into rates; one belongs to one connection.
export class Sampler {
  #before = null;

  // sample digests a report taken now. Rates are over the time since the last
  // call and null on the first. Bitrates are bit/s, times seconds, loss 0…1.
  sample(report, servers) {
    const now = digest(report, servers);
    const before = this.#before;
    this.#before = now;
    const rates = { up: null, down: null, loss: null };
    if (before && now.at > before.at) {
      const seconds = (now.at - before.at) / 1000;
      rates.up = Math.max(0, ((now.sent - before.sent) * 8) / seconds);
      rates.down = Math.max(0, ((now.received - before.received) * 8) / seconds);
      rates.loss = lossBetween(before, now);
    }
    return { ...now, ...rates };
  }
}

function lossBetween(before, now) {
  const lost = Math.max(0, now.packetsLost - before.packetsLost);
  const arrived = Math.max(0, now.packetsReceived - before.packetsReceived);
  return lost + arrived === 0 ? 0 : lost / (lost + arrived);
}

function digest(report, servers) {
  const inbound = [];
  const outbound = [];
  for (const stat of report.values()) {
    const codec = report.get(stat.codecId)?.mimeType.split('/')[1] ?? '';
    if (stat.type === 'inbound-rtp') inbound.push({ ...readInbound(stat), codec });
    if (stat.type === 'outbound-rtp') outbound.push({ ...readOutbound(stat), codec });
  }
  const pair = selectedPair(report);
  const jitters = inbound.filter((stream) => stream.kind === 'audio' && stream.packetsReceived > 0).map((stream) => stream.jitter);
  return {
    at: performance.now(),
    path: pair ? describePath(report.get(pair.localCandidateId) ?? {}, report.get(pair.remoteCandidateId) ?? {}, servers) : null,
    rtt: pair?.currentRoundTripTime ?? null,
    jitter: jitters.length > 0 ? Math.max(...jitters) : null,
    sent: pair?.bytesSent ?? 0,
    received: pair?.bytesReceived ?? 0,
    packetsLost: inbound.reduce((sum, stream) => sum + stream.packetsLost, 0),
    packetsReceived: inbound.reduce((sum, stream) => sum + stream.packetsReceived, 0),
    inbound,
    outbound,
  };
}

function readInbound(stat) {
  return {
    mid: stat.mid ?? null,
    kind: stat.kind,
    ssrc: stat.ssrc,
    packetsReceived: stat.packetsReceived ?? 0,
    packetsLost: stat.packetsLost ?? 0,
    bytesReceived: stat.bytesReceived ?? 0,
    jitter: stat.jitter ?? 0,
    totalAudioEnergy: stat.totalAudioEnergy ?? 0,
    framesDecoded: stat.framesDecoded ?? 0,
    frameWidth: stat.frameWidth ?? 0,
    frameHeight: stat.frameHeight ?? 0,
    keyFramesDecoded: stat.keyFramesDecoded ?? 0,
    freezeCount: stat.freezeCount ?? 0,
    frozenSeconds: stat.totalFreezesDuration ?? 0,
    nacks: stat.nackCount ?? 0,
    plis: stat.pliCount ?? 0,
  };
}

function readOutbound(stat) {
  return {
    mid: stat.mid ?? null,
    rid: stat.rid ?? '',
    kind: stat.kind,
    ssrc: stat.ssrc,
    packetsSent: stat.packetsSent ?? 0,
    bytesSent: stat.bytesSent ?? 0,
    framesEncoded: stat.framesEncoded ?? 0,
  };
}

// selectedPair finds the pair in use: Chromium names it in the transport's
// stats, older Firefox marks the pair itself.
function selectedPair(report) {
  for (const stat of report.values()) {
    if (stat.type === 'transport' && stat.selectedCandidatePairId) {
      const pair = report.get(stat.selectedCandidatePairId);
      if (pair) return pair;
    }
  }
  for (const stat of report.values()) {
    if (stat.type === 'candidate-pair' && (stat.selected || (stat.nominated && stat.state === 'succeeded'))) return stat;
  }
  return null;
}
