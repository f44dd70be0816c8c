// The control bar: microphone or tone, screen, camera, leave.

import { Tone, explain, openCamera, openMicrophone, openScreen } from './media.mjs';

const $ = (id) => document.getElementById(id);

// Controls are the buttons of one stay in a room. Each action runs after the
// one before it, so that impatient clicking cannot mix two of them.
export class Controls {
  screen = null; // our shared screen, a stream
  camera = null; // our camera, a stream

  #session;
  #voice = null; // 'mic', 'tone' or null = muted
  #tone = new Tone();
  #microphone = null;
  #busy = Promise.resolve();
  #abort = new AbortController();

  constructor(session) {
    this.#session = session;
    const { signal } = this.#abort;
    const on = (id, action) => $(id).addEventListener('click', () => this.#queue(action), { signal });
    on('b-mic', () => this.#setVoice(this.#voice === 'mic' ? null : 'mic'));
    on('b-tone', () => this.#setVoice(this.#voice === 'tone' ? null : 'tone'));
    on('b-screen', () => (this.screen ? this.#endScreen() : this.#startScreen()));
    on('b-camera', () => (this.camera ? this.#endCamera() : this.#startCamera()));
    $('b-leave').addEventListener('click', () => session.end(), { signal });
    document.addEventListener('keydown', (event) => this.#key(event), { signal });
    for (const id of ['b-mic', 'b-tone', 'b-screen', 'b-camera']) $(id).disabled = true;
    this.#draw();
  }

  // enable lets the buttons be used: the call is connected.
  enable() {
    for (const id of ['b-mic', 'b-tone', 'b-camera']) $(id).disabled = false;
    $('b-screen').disabled = !navigator.mediaDevices?.getDisplayMedia;
  }

  stopScreen() {
    this.#queue(() => this.#endScreen());
  }

  // close releases every device.
  close() {
    this.#abort.abort();
    this.#microphone?.stop();
    this.#tone.stop();
    for (const stream of [this.screen, this.camera]) stream?.getTracks().forEach((track) => track.stop());
    this.screen = this.camera = null;
  }

  #queue(action) {
    this.#busy = this.#busy.then(async () => {
      if (this.#abort.signal.aborted) return;
      try {
        await action();
      } catch (error) {
        if (!this.#abort.signal.aborted) this.#session.notify(`That did not work: ${error.message}.`, 'bad');
      }
      this.#draw();
      this.#session.draw();
    });
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const id = { m: 'b-mic', t: 'b-tone', s: 'b-screen', v: 'b-camera' }[event.key.toLowerCase()];
    if (id) $(id).click();
  }

  async #setVoice(source) {
    let track = null;
    try {
      if (source === 'mic') track = await this.#openMicrophone();
      if (source === 'tone') track = await this.#tone.start();
    } catch (error) {
      this.#session.notify(explain(error, 'microphone'), 'bad');
      return;
    }
    await this.#session.call.setVoice(track);
    this.#voice = source;
    this.#session.notify('');
    if (source !== 'tone') this.#tone.stop();
    if (source !== 'mic') {
      this.#microphone?.stop(); // the browser's recording light goes out when muted
      this.#microphone = null;
    }
  }

  async #openMicrophone() {
    this.#microphone ??= await openMicrophone($('microphone').value);
    return this.#microphone;
  }

  async #startScreen() {
    let stream;
    try {
      stream = await openScreen();
    } catch (error) {
      if (error.name !== 'NotAllowedError') this.#session.notify(explain(error, 'screen'), 'bad');
      return; // NotAllowedError: the user has closed the chooser
    }
    stream.getVideoTracks()[0].addEventListener('ended', () => this.stopScreen());
    this.screen = stream;
    try {
      await this.#session.call.startScreen(stream);
    } catch (error) {
      await this.#endScreen();
      throw error;
    }
  }

  async #endScreen() {
    const stream = this.screen;
    if (!stream) return;
    this.screen = null;
    stream.getTracks().forEach((track) => track.stop());
    await this.#session.call.stopScreen();
  }

  async #startCamera() {
    let stream;
    try {
      stream = await openCamera($('camera').value);
    } catch (error) {
      this.#session.notify(explain(error, 'camera'), 'bad');
      return;
    }
    this.camera = stream;
    try {
      await this.#session.call.startCamera(stream);
    } catch (error) {
      stream.getTracks().forEach((track) => track.stop());
      this.camera = null;
      throw error;
    }
  }

  async #endCamera() {
    await this.#session.call.stopCamera();
    this.camera?.getTracks().forEach((track) => track.stop());
    this.camera = null;
  }

  #draw() {
    draw('b-mic', this.#voice === 'mic', this.#voice === 'mic' ? 'mic' : 'mic-off', this.#voice === 'mic' ? 'Mute' : 'Unmute');
    draw('b-tone', this.#voice === 'tone', 'tone', this.#voice === 'tone' ? 'Stop tone' : 'Tone');
    draw('b-screen', this.screen !== null, 'screen', this.screen ? 'Stop' : 'Share');
    draw('b-camera', this.camera !== null, 'camera', this.camera ? 'Camera off' : 'Camera');
  }
}

function draw(id, pressed, icon, text) {
  const button = $(id);
  button.ariaPressed = String(pressed);
  button.querySelector('use').setAttribute('href', `#i-${icon}`);
  button.querySelector('span').textContent = text;
}
