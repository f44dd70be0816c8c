// The WebSocket to the demo's backend: JSON messages, and the same seat in the
// room again after a short interruption.

const RETRY_MS = [0, 500, 1000, 2000, 3000];

// A Signal calls back: message(object), lost() when the connection broke and is
// being rebuilt, ended(reason) when it will not come back.
export class Signal {
  #handlers;
  #socket = null;
  #resume = null; // {session, resume} once joined
  #closed = false;
  #attempt = 0;
  #timer = null;
  #waiting = []; // said while the connection was away

  constructor(handlers) {
    this.#handlers = handlers;
  }

  // open connects and sends the first message (join). It resolves once open.
  open(join) {
    return new Promise((resolve, reject) => {
      this.#connect(() => {
        this.#socket.send(JSON.stringify(join));
        resolve();
      }, reject);
    });
  }

  send(message) {
    if (this.#closed) return;
    if (this.#socket?.readyState === WebSocket.OPEN && this.#resume) {
      this.#socket.send(JSON.stringify(message));
    } else if (this.#waiting.length < 200) {
      this.#waiting.push(message);
    }
  }

  // close says goodbye; nothing is called back after it.
  close() {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ type: 'leave' }));
    this.#socket?.close(1000);
  }

  #connect(opened, failed) {
    const url = new URL('/demo/ws', location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.onopen = opened;
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#lost(event, failed);
  }

  #receive(text) {
    if (this.#closed) return;
    const message = JSON.parse(text);
    if (message.type === 'joined') {
      this.#attempt = 0;
      this.#resume = { session: message.session, resume: message.resume };
      for (const waiting of this.#waiting.splice(0)) this.#socket.send(JSON.stringify(waiting));
    }
    if (message.type === 'ended' || (message.type === 'error' && message.fatal)) {
      this.#closed = true;
      clearTimeout(this.#timer);
    }
    this.#handlers.message(message);
  }

  #lost(event, failed) {
    if (this.#closed) return;
    if (!this.#resume) {
      this.#closed = true;
      failed?.(new Error('The server could not be reached.'));
      this.#handlers.ended(event.reason || 'The server could not be reached.');
      return;
    }
    if (this.#attempt >= RETRY_MS.length) {
      this.#closed = true;
      this.#handlers.ended('The connection to the server was lost.');
      return;
    }
    this.#handlers.lost();
    this.#timer = setTimeout(() => {
      if (this.#closed) return;
      this.#connect(() => this.#socket.send(JSON.stringify({ type: 'resume', ...this.#resume })));
    }, RETRY_MS[this.#attempt++]);
  }
}
