// Where sound and pictures come from: microphone, tone generator, camera, screen.

// A Tone is a soft melody made in the browser, so that a call can be heard
// without a microphone. Its pauses matter: a steady tone is not "voice" to the
// server's voice activity detection, which looks for changes in level.
export class Tone {
  #context = null;
  #track = null;
  #timer = null;
  #next = 0;
  #step = 0;

  // start returns the track; calling it again returns the same one.
  async start() {
    if (this.#track) return this.#track;
    this.#context = new AudioContext();
    await this.#context.resume();
    const destination = this.#context.createMediaStreamDestination();
    this.#next = this.#context.currentTime + 0.05;
    this.#schedule(destination);
    this.#timer = setInterval(() => this.#schedule(destination), 250);
    [this.#track] = destination.stream.getAudioTracks();
    return this.#track;
  }

  stop() {
    clearInterval(this.#timer);
    this.#track?.stop();
    this.#context?.close();
    this.#track = this.#context = null;
  }

  // #schedule writes the next notes: three, then a rest of the same length.
  #schedule(destination) {
    const notes = [392, 440, 523.25, 0, 0, 523.25, 440, 659.25, 0, 0];
    const length = 0.32;
    while (this.#next < this.#context.currentTime + 1.5) {
      const frequency = notes[this.#step++ % notes.length];
      if (frequency > 0) this.#note(destination, frequency, this.#next, length);
      this.#next += length;
    }
  }

  #note(destination, frequency, at, length) {
    const oscillator = new OscillatorNode(this.#context, { type: 'sine', frequency });
    const gain = new GainNode(this.#context, { gain: 0 });
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(0.35, at + 0.03);
    gain.gain.exponentialRampToValueAtTime(0.002, at + length * 0.95);
    oscillator.connect(gain).connect(destination);
    oscillator.start(at);
    oscillator.stop(at + length);
    oscillator.onended = () => gain.disconnect();
  }
}

// openMicrophone asks for permission and returns the track.
export async function openMicrophone(deviceId) {
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  if (deviceId) audio.deviceId = { ideal: deviceId };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  return stream.getAudioTracks()[0];
}

// openCamera asks for permission and returns the stream.
export function openCamera(deviceId) {
  const video = { width: { ideal: 640 }, height: { ideal: 360 }, frameRate: { ideal: 30 } };
  if (deviceId) video.deviceId = { ideal: deviceId };
  return navigator.mediaDevices.getUserMedia({ video });
}

// openScreen lets the user choose what to share, with sound where the browser can.
export function openScreen() {
  return navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { max: 20 } }, audio: true });
}

// listDevices returns {microphones, cameras}, each [{id, label}]. Labels are
// empty until the user has given permission once.
export async function listDevices() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  const pick = (kind) => devices.filter((device) => device.kind === kind && device.deviceId).map(({ deviceId, label }) => ({ id: deviceId, label }));
  return { microphones: pick('audioinput'), cameras: pick('videoinput') };
}

// explain says in the user's words why a device could not be opened.
export function explain(error, what) {
  switch (error?.name) {
    case 'NotAllowedError': return `The browser did not allow the ${what}.`;
    case 'NotFoundError': return `There is no ${what} here.${what === 'microphone' ? ' Try the tone generator.' : ''}`;
    case 'NotReadableError': return `The ${what} is in use by another program.`;
    default: return `The ${what} could not be used: ${error?.message ?? error}`;
  }
}
