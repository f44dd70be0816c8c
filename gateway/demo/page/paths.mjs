// The ways from a browser to the media server, and how each of them is forced.
//
//   automatic    you ── whatever ICE finds best ──> SFU
//   udp, tcp     you ── UDP or TCP 8443 ──────────> SFU
//   turn-*       you ── UDP, TCP or TLS 443 ──> TURN ··in process··> SFU
//
// A direct path is forced by offering no TURN server and hiding, in both
// directions, every candidate of another protocol: if the SFU knew of our UDP
// candidate it would check it, and the answer would make a UDP path again.
// A relayed path is forced with the relay policy and one TURN URL.

export const PATHS = [
  { id: 'auto', name: 'Automatic', hint: 'the best one that works' },
  { id: 'udp', name: 'UDP 8443', hint: 'straight and fastest', protocol: 'udp' },
  { id: 'tcp', name: 'TCP 8443', hint: 'when UDP is blocked', protocol: 'tcp' },
  { id: 'turn-udp', name: 'TURN/UDP 443', hint: 'only port 443 is open', relay: 'udp' },
  { id: 'turn-tcp', name: 'TURN/TCP 443', hint: '443, and no UDP at all', relay: 'tcp' },
  { id: 'turn-tls', name: 'TURN/TLS 443', hint: 'looks like any https visit', relay: 'tls' },
];

// findPath returns the path of that id, Automatic if there is none.
export function findPath(id) {
  return PATHS.find((path) => path.id === id) ?? PATHS[0];
}

// parseCandidate reads the fields of a candidate line that paths differ in;
// null when it is not one. RFC 8839 §5.1.
export function parseCandidate(line) {
  const match = /^(?:a=)?candidate:\S+ \d+ (\S+) \d+ (\S+) (\d+) typ (\S+)/i.exec(line);
  if (!match) return null;
  const [, protocol, address, port, type] = match;
  return { protocol: protocol.toLowerCase(), address, port: Number(port), type: type.toLowerCase() };
}

// keepRemote tells whether the SFU's candidate may be used on this path.
// media holds the media ports: {udp, tcp}.
export function keepRemote(path, line, media) {
  if (!path.protocol) return true;
  const candidate = parseCandidate(line);
  return candidate !== null && candidate.protocol === path.protocol && candidate.port === media[path.protocol];
}

// keepLocal tells whether the SFU may learn of our candidate on this path.
export function keepLocal(path, line) {
  const candidate = parseCandidate(line);
  if (candidate === null) return !path.protocol && !path.relay; // the empty end-of-candidates line
  if (path.protocol) return candidate.protocol === path.protocol && candidate.type !== 'relay';
  if (path.relay) return candidate.type === 'relay';
  return true;
}

// filterSDP returns the SDP without the candidates that keep refuses.
export function filterSDP(sdp, keep) {
  return sdp
    .split(/\r?\n/)
    .filter((line) => !line.startsWith('a=candidate:') || keep(line))
    .join('\r\n');
}

// iceConfiguration returns what RTCPeerConnection has to be given for this path.
export function iceConfiguration(path, iceServers) {
  if (path.protocol) return { iceServers: [], iceTransportPolicy: 'all' };
  if (!path.relay) return { iceServers, iceTransportPolicy: 'all' };
  const servers = [];
  for (const server of iceServers) {
    const urls = server.urls.filter((url) => relayOf(url) === path.relay);
    if (urls.length > 0) servers.push({ ...server, urls });
  }
  return { iceServers: servers, iceTransportPolicy: 'relay' };
}

// relayOf names how one speaks to a TURN URL: udp, tcp or tls; '' if it is not one.
export function relayOf(url) {
  const match = /^(turns?):[^?]+(?:\?transport=(\w+))?$/i.exec(url);
  if (!match) return '';
  if (match[1].toLowerCase() === 'turns') return 'tls';
  return (match[2] ?? 'udp').toLowerCase();
}

// turnPort returns the port of a TURN URL, 0 if it names none.
export function turnPort(url) {
  const match = /^turns?:(?:\[[^\]]*\]|[^:?]+):(\d+)/i.exec(url ?? '');
  return match ? Number(match[1]) : 0;
}

// describePath names the path of a selected candidate pair. servers are the
// TURN URLs in use, for browsers that do not say which one a relay came from.
export function describePath(local, remote, servers = []) {
  const relayed = local.candidateType === 'relay';
  const protocol = local.protocol ?? remote.protocol ?? '';
  const relay = relayed ? local.relayProtocol ?? relayOf(local.url ?? '') : '';
  const url = local.url || servers.find((candidate) => relayOf(candidate) === relay) || '';
  const door = relayed ? turnPort(url) : remote.port ?? 0;
  return {
    id: relayed ? `turn-${relay}` : protocol,
    name: relayed ? `TURN/${relay.toUpperCase()} ${door}` : `${protocol.toUpperCase()} ${door}`,
    relayed,
    candidateType: local.candidateType ?? '',
    protocol,
    relayProtocol: relay,
    turnPort: relayed ? door : 0,
    remoteAddress: remote.address ?? remote.ip ?? '',
    remotePort: remote.port ?? 0,
    remoteProtocol: remote.protocol ?? '',
  };
}
