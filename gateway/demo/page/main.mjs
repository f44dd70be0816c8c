// The page: lobby, call, and the controls between the user and both.

import { Call } from './call.mjs';
import { Signal } from './signal.mjs';
import { Stage } from './stage.mjs';
import { Panel } from './panel.mjs';
import { Sampler } from './stats.mjs';
import { Controls } from './controls.mjs';
import { PATHS, findPath } from './paths.mjs';
import { listDevices } from './media.mjs';
import { readSettings } from './video.mjs';

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const settings = readSettings(query);

// A Session is one stay in a room: signalling, call, and what is shown of them.
class Session {
  state = 'joining'; // joining, connected, ended
  session = '';
  room = '';
  people = new Map(); // session → participant
  path;
  call = null;
  controls;

  #signal;
  #config;
  #stage = new Stage();
  #panel = new Panel();
  #sampler = new Sampler();
  #timers = [];
  #since = 0;
  #relayError = '';

  constructor(path) {
    this.path = path;
    this.controls = new Controls(this);
    this.#signal = new Signal({
      message: (message) => this.#message(message),
      lost: () => this.notify('Reconnecting to the server…', 'bad'),
      ended: (text) => this.end(text),
    });
  }

  async join(name, room) {
    const response = await fetch('/demo/config');
    if (!response.ok) throw new Error('The server does not answer as expected.');
    this.#config = await response.json();
    this.#panel.waiting(this.path);
    const { dcSignaling, av1 } = settings;
    await this.#signal.open({ type: 'join', name, room, dcSignaling, av1Support: av1 });
  }

  send(message) {
    this.#signal.send(message);
  }

  // stats samples the connection for the console; it does not disturb the panel.
  async stats() {
    if (!this.call) return null;
    return new Sampler().sample(await this.call.stats(), this.call.turnURLs);
  }

  // notify shows a line above the stage; an empty text takes it away.
  notify(text, kind = '') {
    $('notice').textContent = text;
    $('notice').dataset.kind = kind;
    $('notice').hidden = text === '';
  }

  draw() {
    if (this.state === 'ended') return;
    const people = [...this.people.values()];
    this.#stage.render({
      people,
      self: this.session,
      remotes: this.call?.remotes() ?? [],
      local: { camera: this.controls.camera, screen: this.controls.screen },
    });
    $('headcount').textContent = people.length === 1 ? 'Only you' : `${people.length} people`;
  }

  // end leaves the room and shows the lobby again, with the reason if any.
  end(reason = '') {
    if (this.state === 'ended') return;
    this.state = 'ended';
    this.#timers.forEach(clearInterval);
    this.controls.close();
    this.call?.close();
    this.#signal.close();
    this.#stage.clear();
    this.notify('');
    showLobby(reason);
  }

  #message(message) {
    switch (message.type) {
      case 'joined': return this.#joined(message);
      case 'participant': this.people.set(message.participant.session, message.participant); break;
      case 'left': this.people.delete(message.session); break;
      case 'signal': return this.call?.receive(message.data);
      case 'link': return this.notify(message.up ? '' : 'The media server cannot be reached; trying again…', 'bad');
      case 'error': return this.#refused(message);
      case 'ended': return this.end(message.text);
    }
    this.draw();
  }

  #refused({ fatal, text, code }) {
    if (fatal) return this.end(text);
    this.notify(text, 'bad');
    if (code === 'screen_taken') this.controls.stopScreen();
  }

  #joined({ session, room, participants }) {
    this.session = session;
    this.room = room;
    this.people = new Map(participants.map((person) => [person.session, person]));
    $('room-name').textContent = room;
    if (this.call) {
      this.notify(''); // back after an interruption
    } else {
      showCall();
      this.#startCall();
    }
    this.draw();
  }

  #startCall() {
    const options = { path: this.path, config: this.#config, settings, send: (message) => this.send(message) };
    this.call = new Call(options, {
      connected: () => this.#connected(),
      failed: (reason) => this.end(this.#whyNot(reason)),
      media: () => this.draw(),
      iceError: (event) => {
        this.#relayError = `${event.errorCode} ${event.errorText}`.trim();
      },
    });
    this.#timers.push(setInterval(() => this.#sample(), 1000), setInterval(() => this.#report(), 10_000));
  }

  #connected() {
    if (this.state !== 'joining') return;
    this.state = 'connected';
    this.#since = Date.now();
    this.controls.enable();
    this.#sample();
  }

  #latest = null;

  async #sample() {
    if (this.#since) $('clock').textContent = clock(Date.now() - this.#since);
    const sample = this.#sampler.sample(await this.call.stats(), this.call.turnURLs);
    if (this.state === 'ended') return;
    this.#latest = sample;
    this.#panel.show(sample);
  }

  #report() {
    if (this.#latest) this.call.report({ ...this.#latest, rtt: this.#latest.rtt ?? this.call.pingSeconds });
  }

  #whyNot(reason) {
    if (this.state === 'connected') return 'The connection to the media server was lost. Join again to continue.';
    const tried = this.path.id === 'auto' ? 'No way to the media server works from here' : `${this.path.name} does not work from here`;
    const detail = this.#relayError ? ` (the browser says: ${this.#relayError})` : '';
    const hint = this.path.relay === 'tls'
      ? ' Browsers want a trusted certificate for TURN/TLS; accepting a warning for the page is not enough for them.'
      : ' Try another one.';
    return `${tried}${reason === 'timeout' ? ': it took longer than 15 seconds' : ''}${detail}.${hint}`;
  }
}

function clock(ms) {
  const seconds = Math.floor(ms / 1000);
  const two = (n) => String(n).padStart(2, '0');
  return `${seconds >= 3600 ? `${Math.floor(seconds / 3600)}:` : ''}${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}

let current = null; // the Session, or null in the lobby

function showCall() {
  $('lobby').hidden = true;
  $('call').hidden = false;
  document.body.dataset.view = 'call';
  document.title = `${$('room-name').textContent} · Sallyport demo`;
}

function showLobby(reason) {
  current = null;
  $('call').hidden = true;
  $('lobby').hidden = false;
  document.body.dataset.view = 'lobby';
  document.title = 'Sallyport demo';
  $('lobby-error').textContent = reason;
  $('lobby-error').hidden = reason === '';
  $('join-button').disabled = false;
  $('join-button').textContent = reason ? 'Join again' : 'Join the call';
  fillDevices();
}

async function join(event) {
  event.preventDefault();
  const form = $('join');
  if (current || !form.reportValidity()) return;
  $('lobby-error').hidden = true;
  $('join-button').disabled = true;
  $('join-button').textContent = 'Joining…';
  localStorage.setItem('name', $('name').value);
  current = new Session(findPath(new FormData(form).get('path')));
  const mine = current;
  try {
    await mine.join($('name').value, $('room').value);
  } catch (error) {
    mine.end(error.message);
  }
}

function buildLobby() {
  const chosen = findPath(query.get('path')).id;
  for (const { id, name, hint } of PATHS) {
    const label = document.createElement('label');
    label.className = 'path';
    const input = Object.assign(document.createElement('input'), { type: 'radio', name: 'path', value: id, checked: id === chosen });
    const text = document.createElement('span');
    text.append(Object.assign(document.createElement('b'), { textContent: name }), Object.assign(document.createElement('small'), { textContent: hint }));
    label.append(input, text);
    $('paths').append(label);
  }
  $('name').value = query.get('name') ?? localStorage.getItem('name') ?? `Guest ${100 + Math.floor(Math.random() * 900)}`;
  $('room').value = query.get('room') ?? 'lobby';
  $('join').addEventListener('submit', join);
  fillDevices();
  navigator.mediaDevices?.addEventListener?.('devicechange', fillDevices);
}

async function fillDevices() {
  const { microphones, cameras } = await listDevices();
  for (const [select, devices, what] of [[$('microphone'), microphones, 'Microphone'], [$('camera'), cameras, 'Camera']]) {
    const chosen = select.value;
    const options = devices.map(({ id, label }, i) => new Option(label || `${what} ${i + 1}`, id));
    select.replaceChildren(new Option('Default', ''), ...options);
    select.value = devices.some(({ id }) => id === chosen) ? chosen : '';
  }
}

async function copyInvitation() {
  const url = new URL('/', location.href);
  url.searchParams.set('room', current.room);
  try {
    await navigator.clipboard.writeText(url.href);
    current.notify('Link copied. Open it in another tab, browser or machine.');
  } catch {
    current.notify(url.href);
  }
  setTimeout(() => current?.notify(''), 4000);
}

buildLobby();
$('invite').addEventListener('click', copyInvitation);
$('b-panel').addEventListener('click', () => {
  $('b-panel').ariaExpanded = String($('panel').classList.toggle('open'));
});
addEventListener('pagehide', () => current?.end());

// For the console and the tests: how it goes, to be read and not to be changed.
window.sallyport = Object.freeze({
  get state() { return current?.state ?? 'lobby'; },
  get session() { return current?.session ?? ''; },
  get room() { return current?.room ?? ''; },
  get path() { return current?.path.id ?? ''; },
  get participants() { return current ? [...current.people.values()].map((person) => ({ ...person })) : []; },
  get offers() { return { sent: 0, received: 0, ...current?.call?.offers }; },
  get signalingState() { return current?.call?.signalingState ?? 'closed'; },
  get connectionState() { return current?.call?.connectionState ?? 'closed'; },
  get pingSeconds() { return current?.call?.pingSeconds ?? null; },
  get media() { return current?.call?.remotes().map(({ mid, type, sender }) => ({ mid, type, sender })) ?? []; },
  stats: () => current?.stats() ?? Promise.resolve(null),
});
