// Watches the WebSocket that the RDP component opens: its close code never reaches the component,
// and messages that the gateway has put together reach it one by one (pieces.ts says why).

import type { SocketEnd } from './ends.js';
import { Pieces } from './pieces.js';

/** The last socket to the watched address, as far as it has come. */
export interface WatchedSocket {
  readonly end: SocketEnd;
  /** Resolves when it is closed, or after `timeoutMs`. */
  closed(timeoutMs: number): Promise<void>;
  /** Closes what the component may have left open. */
  drop(): void;
}

export interface SocketEvents {
  opened(): void;
  firstMessage(): void;
}

export interface Watch {
  /** The socket of this attempt, once it exists. */
  socket(): WatchedSocket | undefined;
  /** An attempt begins: sockets of earlier ones no longer count. */
  forget(): void;
}

/**
 * Replaces `window.WebSocket` by a subclass. Must run before the component's module is loaded,
 * and changes nothing for sockets to other addresses.
 */
export function watchSockets(address: string, events: SocketEvents): Watch {
  let last: WatchedSocket | undefined;

  class Watched extends WebSocket {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(url, protocols);
      if (new URL(url).href === new URL(address).href) {
        last = watch(this, events, () => this.#closing);
        cut(this);
      }
    }

    #closing = false;

    override close(code?: number, reason?: string): void {
      this.#closing ||= this.readyState < WebSocket.CLOSING;
      super.close(code, reason);
    }
  }

  window.WebSocket = Watched;
  return {
    socket: () => last,
    forget: () => {
      last = undefined;
    },
  };
}

function watch(socket: WebSocket, events: SocketEvents, closing: () => boolean): WatchedSocket {
  const seen = { opened: false, messages: 0, code: undefined as number | undefined };
  const ended = new Promise<void>((resolve) => {
    socket.addEventListener('close', (event) => {
      seen.code = event.code;
      resolve();
    });
  });
  socket.addEventListener('open', () => {
    seen.opened = true;
    events.opened();
  });
  socket.addEventListener('message', () => {
    seen.messages += 1;
    if (seen.messages === 1) {
      events.firstMessage();
    }
  });
  return {
    get end() {
      return { ...seen, closedHere: closing() };
    },
    closed: (timeoutMs) => Promise.race([ended, new Promise<void>((done) => setTimeout(done, timeoutMs))]),
    drop: () => socket.close(),
  };
}

/** Hands messages on in pieces. Registered before the component listens, so that it sees these alone. */
function cut(socket: WebSocket): void {
  const pieces = new Pieces();
  const ours = new WeakSet<Event>();
  socket.addEventListener('message', (event: MessageEvent<unknown>) => {
    if (pieces.done || ours.has(event) || !(event.data instanceof ArrayBuffer)) {
      return;
    }
    event.stopImmediatePropagation();
    for (const piece of pieces.take(new Uint8Array(event.data))) {
      const part = new MessageEvent('message', { data: piece.slice().buffer, origin: event.origin });
      ours.add(part);
      socket.dispatchEvent(part);
    }
  });
}
