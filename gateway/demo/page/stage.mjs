// The stage: one tile for every participant, the shared screen beside them,
// and the sound of everybody. It is drawn from two lists: who is here (the
// backend says) and what arrives (the call says).

const tilesBox = document.getElementById('tiles');
const featured = document.getElementById('featured');
const soundBox = document.getElementById('sound');
const stage = tilesBox.parentElement;

// A Stage keeps the page's elements in step with what render is given.
export class Stage {
  #tiles = new Map(); // session → {root, ...}
  #sounds = new Map(); // mid → audio element
  #screen = null; // {track, video}
  #watch = new ResizeObserver(() => arrange(this.#tiles.size));

  constructor() {
    this.#watch.observe(tilesBox);
  }

  // render draws the call. people: [{session, name, muted, voice, screen,
  // video}], self: our session, remotes: Call.remotes(), local: {camera,
  // screen} streams or null.
  render({ people, self, remotes, local }) {
    this.#sound(remotes);
    this.#people(people, self, (person) => cameraOf(person, self, remotes, local));
    this.#feature(screenOf(people, self, remotes, local));
    arrange(people.length);
  }

  clear() {
    this.#watch.disconnect();
    this.render({ people: [], self: '', remotes: [], local: {} });
  }

  #sound(remotes) {
    const heard = remotes.filter(({ track }) => track.kind === 'audio');
    const mids = new Set(heard.map(({ mid }) => mid));
    for (const [mid, element] of this.#sounds) {
      if (mids.has(mid)) continue;
      element.srcObject = null;
      element.remove();
      this.#sounds.delete(mid);
    }
    for (const { mid, track } of heard) {
      const element = this.#sounds.get(mid);
      if (element?.srcObject.getTracks()[0] === track) continue;
      if (element) {
        element.srcObject = new MediaStream([track]);
        continue;
      }
      const added = Object.assign(document.createElement('audio'), { autoplay: true, srcObject: new MediaStream([track]) });
      soundBox.append(added);
      this.#sounds.set(mid, added);
    }
  }

  #people(people, self, camera) {
    const present = new Set(people.map(({ session }) => session));
    for (const [session, tile] of this.#tiles) {
      if (present.has(session)) continue;
      tile.root.remove();
      this.#tiles.delete(session);
    }
    for (const person of people) {
      let tile = this.#tiles.get(person.session);
      if (!tile) {
        tile = newTile(person, person.session === self);
        this.#tiles.set(person.session, tile);
        tilesBox.append(tile.root);
      }
      drawTile(tile, person, person.session === self, camera(person));
    }
  }

  #feature(screen) {
    stage.classList.toggle('with-screen', screen !== null);
    featured.hidden = screen === null;
    if (!screen) {
      featured.replaceChildren();
      this.#screen = null;
      return;
    }
    if (this.#screen?.track === screen.track) return;
    const video = newVideo(screen.track);
    video.id = 'screen-video';
    const label = document.createElement('p');
    label.className = 'label';
    label.textContent = screen.label;
    featured.replaceChildren(video, label);
    this.#screen = { track: screen.track, video };
  }
}

// arrange finds the number of columns that makes the tiles largest, between
// 4:3 and 16:9, and rather side by side than stacked.
function arrange(count) {
  const gap = 14;
  const { clientWidth, clientHeight } = tilesBox;
  let best = { score: 0, wide: 0, high: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const roomWide = (clientWidth - gap * (columns - 1)) / columns;
    const roomHigh = (clientHeight - gap * (rows - 1)) / rows;
    const wide = Math.min(roomWide, (roomHigh * 16) / 9);
    const high = Math.min(roomHigh, (wide * 3) / 4);
    const score = wide * high * (columns >= rows ? 1.25 : 1);
    if (score > best.score) best = { score, wide, high };
  }
  tilesBox.style.setProperty('--tile-width', `${Math.floor(best.wide)}px`);
  tilesBox.style.setProperty('--tile-height', `${Math.floor(best.high)}px`);
}

// cameraOf finds the picture of a person who says its camera is on.
function cameraOf(person, self, remotes, local) {
  if (person.session === self) return local.camera?.getVideoTracks()[0] ?? null;
  if (!person.video) return null; // the track may still be there, gone quiet
  return remotes.find(({ type, sender }) => type === 'video' && sender === person.session)?.track ?? null;
}

// screenOf finds the shared screen; ours is shown to ourselves as well.
function screenOf(people, self, remotes, local) {
  if (local.screen) return { track: local.screen.getVideoTracks()[0], label: 'You are sharing your screen' };
  const sharer = people.find((person) => person.screen && person.session !== self);
  if (!sharer) return null;
  const remote = remotes.find(({ type, sender }) => type === 'screen' && sender === sharer.session);
  return remote ? { track: remote.track, label: `${sharer.name} is sharing` } : null;
}

function newVideo(track) {
  const video = document.createElement('video');
  Object.assign(video, { autoplay: true, muted: true, playsInline: true, srcObject: new MediaStream([track]) });
  return video;
}

function newTile(person, isSelf) {
  const root = document.createElement('li');
  root.className = isSelf ? 'tile self' : 'tile';
  root.dataset.session = person.session;
  const avatar = document.createElement('div');
  avatar.className = 'avatar';
  avatar.textContent = initials(person.name);
  root.style.setProperty('--hue', String(hue(person.name)));
  avatar.ariaHidden = 'true';
  const label = document.createElement('div');
  label.className = 'label';
  const icon = newIcon('mic');
  const name = document.createElement('b');
  name.textContent = isSelf ? `${person.name} (you)` : person.name;
  label.append(icon, name);
  const badge = document.createElement('span');
  badge.className = 'badge';
  badge.textContent = 'Sharing';
  badge.hidden = true;
  root.append(avatar, label, badge);
  return { root, icon, badge, video: null, track: null };
}

function drawTile(tile, person, isSelf, track) {
  const { root } = tile;
  root.classList.toggle('muted', person.muted);
  root.classList.toggle('speaking', person.voice && !person.muted);
  root.classList.toggle('has-video', track !== null);
  const doing = person.muted ? 'muted' : person.voice ? 'speaking' : 'microphone on';
  root.ariaLabel = `${person.name}${isSelf ? ' (you)' : ''}, ${doing}${person.screen ? ', sharing the screen' : ''}`;
  tile.icon.firstChild.setAttribute('href', person.muted ? '#i-mic-off' : '#i-mic');
  tile.badge.hidden = !person.screen;
  if (tile.track === track) return;
  tile.video?.remove();
  tile.track = track;
  tile.video = track ? newVideo(track) : null;
  if (tile.video) root.prepend(tile.video);
}

// newIcon returns an svg that shows a symbol of the page's sprite.
export function newIcon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  svg.ariaHidden = 'true';
  return svg;
}

function initials(name) {
  const words = name.split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : words;
  return letters.map((word) => [...word][0]).join('').toUpperCase();
}

// hue picks one of a few colours that go well together, the same for a name
// everywhere.
function hue(name) {
  const hues = [172, 214, 262, 318, 12, 34, 238, 196, 288];
  let hash = 0x811c9dc5; // FNV-1a
  for (const char of name) hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193) >>> 0;
  return hues[hash % hues.length];
}
