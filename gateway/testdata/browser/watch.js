// In every page that driver.mjs opens: what a test sees and hears there.

// watchMedia lists what arrives, with its statistics: [{name, …inbound}]. A name
// is the class and the sender, "voice Laptop".
window.watchMedia = async () => {
  const { inbound } = await sallyport.stats();
  const names = new Map(sallyport.participants.map(({ session, name }) => [session, name]));
  const of = (mid) => inbound.find((stream) => stream.mid === mid);
  return sallyport.media.map(({ mid, type, sender }) => ({ ...of(mid), name: `${type} ${names.get(sender)}` }));
};

// watchCounter reads the counter that slides.html draws from the picture that is
// shown: {lag: milliseconds since it was drawn, value}. It throws what is wrong
// with the picture if there is none to be read.
window.watchCounter = (selector) => {
  const video = document.querySelector(selector);
  if (!video?.videoWidth) throw new Error(`no picture in ${selector}`);
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(video, 0, 0);
  const cell = canvas.width * 0.03;
  const left = canvas.width * 0.74;
  const top = canvas.width * 0.02;
  const light = (i) => { // the middle of a cell, 0…255
    const { data } = context.getImageData(left + (i % 8 + 0.4) * cell, top + (Math.floor(i / 8) + 0.4) * cell, cell / 5, cell / 5);
    let sum = 0;
    for (let k = 0; k < data.length; k += 4) sum += data[k] + data[k + 1] + data[k + 2];
    return sum / (data.length / 4) / 3;
  };
  let value = 0;
  for (let i = 0; i < 16; i++) {
    const [bit, opposite] = [light(i), light(i + 16)];
    if (Math.abs(bit - opposite) < 100) throw new Error(`bit ${15 - i} cannot be read: ${bit} over ${opposite}, of ${canvas.width}×${canvas.height}`);
    value = value * 2 + (bit > opposite ? 1 : 0);
  }
  const now = Math.floor(Date.now() / 50) & 0xffff;
  return { value, lag: ((now - value) & 0xffff) * 50 };
};

// watchFrames begins to note when pictures appear. gaps() lists the times
// between them in milliseconds, the one that goes on included, and begins anew.
window.watchFrames = (selector) => {
  const video = document.querySelector(selector);
  let last = performance.now();
  let all = [];
  const note = (now) => {
    all.push(now - last);
    last = now;
    video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
  window.gaps = () => {
    const out = [...all, performance.now() - last];
    all = [];
    return out;
  };
};
