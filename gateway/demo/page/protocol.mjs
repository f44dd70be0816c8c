// What travels on the data channel `calls-dc`: one MessagePack unsigned integer
// (the type), optionally followed by one MessagePack value. Only the few forms
// that occur there are written; anything well-formed is read, within bounds.

export const PING = 1;
export const PONG = 2;
export const SDP = 3;
export const LOSS = 4;
export const RTT = 5;
export const JITTER = 6;
export const LOCK = 7;
export const UNLOCK = 8;
export const MEDIA_MAP = 9;

// No description of a call comes near this; more is a decompression bomb.
const MAX_INFLATED = 256 * 1024;
const MAX_DEPTH = 6;

// encode returns the bytes of one message. The payload may be undefined,
// a number or a Uint8Array.
export function encode(type, payload) {
  if (payload === undefined) return Uint8Array.of(type);
  if (typeof payload === 'number') return encodeNumber(type, payload);
  const head = payload.length < 0x100
    ? [type, 0xc4, payload.length]
    : payload.length < 0x10000
      ? [type, 0xc5, payload.length >> 8, payload.length & 0xff]
      : [type, 0xc6, payload.length >>> 24, (payload.length >> 16) & 0xff, (payload.length >> 8) & 0xff, payload.length & 0xff];
  const out = new Uint8Array(head.length + payload.length);
  out.set(head);
  out.set(payload, head.length);
  return out;
}

function encodeNumber(type, value) {
  if (Number.isInteger(value) && value >= 0 && value < 0x80) return Uint8Array.of(type, value);
  const out = new Uint8Array(10);
  out[0] = type;
  out[1] = 0xcb;
  new DataView(out.buffer).setFloat64(2, value);
  return out;
}

// decode reads one message: {type, payload}. It throws on anything malformed.
export function decode(bytes) {
  const reader = new Reader(bytes);
  const type = reader.value(0);
  if (!Number.isInteger(type) || type < 0) throw new Error('read message: type is not an unsigned integer');
  return { type, payload: reader.done() ? undefined : reader.value(0) };
}

class Reader {
  #bytes;
  #view;
  #at = 0;

  constructor(bytes) {
    this.#bytes = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength);
  }

  done() {
    return this.#at === this.#bytes.length;
  }

  // take moves past n bytes and returns where they begin.
  #take(n) {
    const at = this.#at;
    if (at + n > this.#bytes.length) throw new Error('read message: truncated');
    this.#at = at + n;
    return at;
  }

  #binary(n) {
    const at = this.#take(n);
    return this.#bytes.slice(at, at + n);
  }

  #text(n) {
    return new TextDecoder('utf-8', { fatal: true }).decode(this.#binary(n));
  }

  #map(n, depth) {
    if (depth >= MAX_DEPTH) throw new Error('read message: nested too deep');
    const out = new Map(); // an object would let a key named __proto__ in
    for (let i = 0; i < n; i++) {
      const key = this.value(depth + 1);
      out.set(key, this.value(depth + 1));
    }
    return out;
  }

  #array(n, depth) {
    if (depth >= MAX_DEPTH) throw new Error('read message: nested too deep');
    const out = [];
    for (let i = 0; i < n; i++) out.push(this.value(depth + 1));
    return out;
  }

  value(depth) {
    const b = this.#view.getUint8(this.#take(1));
    if (b < 0x80) return b;
    if (b < 0x90) return this.#map(b & 0x0f, depth);
    if (b < 0xa0) return this.#array(b & 0x0f, depth);
    if (b < 0xc0) return this.#text(b & 0x1f);
    if (b >= 0xe0) return b - 0x100;
    return this.#tagged(b, depth);
  }

  #tagged(b, depth) {
    const v = this.#view;
    switch (b) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return this.#binary(v.getUint8(this.#take(1)));
      case 0xc5: return this.#binary(v.getUint16(this.#take(2)));
      case 0xc6: return this.#binary(v.getUint32(this.#take(4)));
      case 0xca: return v.getFloat32(this.#take(4));
      case 0xcb: return v.getFloat64(this.#take(8));
      case 0xcc: return v.getUint8(this.#take(1));
      case 0xcd: return v.getUint16(this.#take(2));
      case 0xce: return v.getUint32(this.#take(4));
      case 0xcf: return Number(v.getBigUint64(this.#take(8)));
      case 0xd0: return v.getInt8(this.#take(1));
      case 0xd1: return v.getInt16(this.#take(2));
      case 0xd2: return v.getInt32(this.#take(4));
      case 0xd3: return Number(v.getBigInt64(this.#take(8)));
      case 0xd9: return this.#text(v.getUint8(this.#take(1)));
      case 0xda: return this.#text(v.getUint16(this.#take(2)));
      case 0xdb: return this.#text(v.getUint32(this.#take(4)));
      case 0xdc: return this.#array(v.getUint16(this.#take(2)), depth);
      case 0xde: return this.#map(v.getUint16(this.#take(2)), depth);
      default: throw new Error(`read message: unknown tag 0x${b.toString(16)}`);
    }
  }
}

// readMediaMap turns the payload of a MEDIA_MAP message into
// Map(mid → {type, sender}); entries of an unknown shape are left out.
export function readMediaMap(payload) {
  const out = new Map();
  if (!(payload instanceof Map)) return out;
  for (const [mid, entry] of payload) {
    if (typeof mid !== 'string' || !(entry instanceof Map)) continue;
    out.set(mid, { type: String(entry.get('type') ?? ''), sender: String(entry.get('sender_id') ?? '') });
  }
  return out;
}

// pack compresses a description the way the data channel carries it:
// zlib (RFC 1950) of the JSON text.
export async function pack(description) {
  const text = JSON.stringify({ type: description.type, sdp: description.sdp });
  const stream = new Blob([text]).stream().pipeThrough(new CompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// unpack is the reverse of pack. It throws when the text would be larger than
// any real description or is not one.
export async function unpack(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate')).getReader();
  const decoder = new TextDecoder();
  let text = '';
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > MAX_INFLATED) {
      await reader.cancel();
      throw new Error('inflate description: too large');
    }
    text += decoder.decode(value, { stream: true });
  }
  const description = JSON.parse(text + decoder.decode());
  if (!['offer', 'answer'].includes(description?.type) || typeof description.sdp !== 'string') {
    throw new Error('inflate description: neither offer nor answer');
  }
  return { type: description.type, sdp: description.sdp };
}
