// The connection panel: the path in use as a small picture, and its numbers.

import { newIcon } from './stage.mjs';

const SAMPLES = 60; // one a second
const $ = (id) => document.getElementById(id);

// A Panel draws samples of stats.mjs as they come.
export class Panel {
  #history = [];
  #drawn = '';

  // waiting shows the path that is being tried.
  waiting(path) {
    this.#history = [];
    this.#route(null, path.relay ? 'relayed' : 'direct');
    $('path-name').textContent = path.id === 'auto' ? 'Looking for a way…' : `Trying ${path.name}…`;
    $('path-detail').textContent = path.hint;
    for (const id of ['n-rtt', 'n-loss', 'n-jitter', 'n-up', 'n-down']) $(id).textContent = '–';
    $('quality').dataset.quality = 'none';
    $('facts').replaceChildren();
    this.#spark();
  }

  // show draws one sample.
  show(sample) {
    if (!sample.path) return;
    const { path } = sample;
    this.#route(path, path.relayed ? 'relayed' : 'direct');
    $('path-name').textContent = path.name;
    $('path-detail').textContent = path.relayed
      ? `Relayed inside Sallyport: no port but ${path.turnPort}`
      : `Straight to the media server on port ${path.remotePort}`;
    $('n-rtt').textContent = milliseconds(sample.rtt);
    $('n-jitter').textContent = milliseconds(sample.jitter);
    $('n-loss').textContent = sample.loss === null ? '–' : `${(sample.loss * 100).toFixed(1)} %`;
    $('n-up').textContent = bitrate(sample.up);
    $('n-down').textContent = bitrate(sample.down);
    $('quality').dataset.quality = quality(sample);
    this.#facts(sample);
    if (sample.up !== null) {
      this.#history.push({ up: sample.up, down: sample.down });
      if (this.#history.length > SAMPLES) this.#history.shift();
    }
    this.#spark();
  }

  #route(path, kind) {
    const key = `${kind} ${path?.name}`;
    if (this.#drawn === key) return;
    this.#drawn = key;
    const live = path !== null;
    const parts = [stop('you', 'You', live)];
    if (kind === 'relayed') {
      const [gate, port] = live ? path.name.split(' ') : ['TURN', ''];
      parts.push(leg(live ? '' : 'idle'), stop('gate', `${gate} ${port}`.trim(), live), leg(live ? 'inside' : 'idle'));
    } else {
      parts.push(leg(live ? '' : 'idle', live ? path.name : ''));
    }
    parts.push(stop('sfu', 'SFU', live));
    $('route').replaceChildren(...parts);
    $('route').setAttribute('role', 'img');
    $('route').ariaLabel = live ? `You, ${path.name}, media server` : 'not connected yet';
  }

  #facts({ path, inbound, outbound, rtt }) {
    const rows = [
      ['Local candidate', `${path.candidateType} / ${path.protocol}`],
      ['Relay protocol', path.relayProtocol || 'none'],
      ['Media server', `${path.remoteAddress}:${path.remotePort}`],
      ['Round trip', milliseconds(rtt)],
      ['Streams in / out', `${inbound.length} / ${outbound.length}`],
      ['Pictures in', pictures(inbound.filter(({ framesDecoded }) => framesDecoded > 0))],
      ['Pictures out', pictures(outbound.filter(({ framesEncoded }) => framesEncoded > 0))],
    ];
    if (path.relayed) rows.splice(2, 0, ['TURN port', String(path.turnPort)]);
    $('facts').replaceChildren(...rows.flatMap(([term, text]) => [element('dt', term), element('dd', text)]));
  }

  #spark() {
    const most = Math.max(64_000, ...this.#history.flatMap(({ up, down }) => [up, down])) * 1.1;
    const span = Math.max(20, this.#history.length); // the first seconds fill more of it
    const x = (i) => (((span - this.#history.length + i) * 240) / (span - 1)).toFixed(1);
    const y = (value) => (55 - (value / most) * 53).toFixed(1);
    const line = (key) => this.#history.map((point, i) => `${i === 0 ? 'M' : 'L'}${x(i)} ${y(point[key])}`).join('');
    const down = line('down');
    $('spark-down').setAttribute('d', down);
    $('spark-up').setAttribute('d', line('up'));
    $('spark-area').setAttribute('d', down && `${down}L240 56L${x(0)} 56Z`);
  }
}

// pictures names the codecs in use, and the layers where there are several.
function pictures(streams) {
  const names = streams.filter(({ kind }) => kind === 'video').map(({ codec, rid }) => `${codec} ${rid ?? ''}`.trim());
  return names.join(', ') || 'none';
}

function stop(icon, text, live) {
  const root = element('div');
  root.className = live ? 'stop on' : 'stop';
  const box = element('i');
  box.append(newIcon(icon));
  root.append(box, element('span', text));
  return root;
}

function leg(kind, text = '') {
  const root = element('div');
  root.className = `leg ${kind}`;
  if (text) root.append(element('em', text));
  return root;
}

function element(name, text) {
  const root = document.createElement(name);
  if (text !== undefined) root.textContent = text;
  return root;
}

function quality({ rtt, loss }) {
  if (rtt === null) return 'none';
  if (rtt > 0.4 || loss > 0.08) return 'bad';
  return rtt > 0.2 || loss > 0.02 ? 'fair' : 'good';
}

function milliseconds(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  const ms = seconds * 1000;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

function bitrate(bits) {
  if (bits === null) return '–';
  return bits >= 1e6 ? `${(bits / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bits / 1000)} kbit/s`;
}
