// Where one RDP message ends and the next begins, in what the gateway sends while a desktop is being
// opened. No DOM.
//
// The RDP component throws away what follows the last message of the connection sequence in the same
// WebSocket message [ironrdp-web: `into_inner_no_leftover`]. There the computer opens clipboard and
// display channels: without them nothing can be pasted, and the desktop does not follow the window.
// So each RDP message gets a WebSocket message of its own until the first picture.

/** Bytes of a TPKT header [RFC 1006 §6] and the most of a fast-path one [MS-RDPBCGR §2.2.9.1.2]. */
const TPKT_BYTES = 4;
const FAST_PATH_BYTES_MAX = 3;
/** Longest header that is looked at: a DER tag with a length of four bytes. */
const HEADER_BYTES_MAX = 6;
/** A sequence that is longer than this is none: stop looking. */
const PIECES_MAX = 512;

/** Cuts a stream into messages; what it does not know it passes on as it came. */
export class Pieces {
  #held = new Uint8Array(0);
  /** Bytes of the current message that are still to come. */
  #missing = 0;
  #count = 0;
  #done = false;

  /** True once nothing will be cut any more. */
  get done(): boolean {
    return this.#done;
  }

  /** The pieces that are whole or begun with `chunk`; an incomplete header waits for the next one. */
  take(chunk: Uint8Array): Uint8Array[] {
    if (this.#done) {
      return [chunk];
    }
    const bytes = joined(this.#held, chunk);
    this.#held = new Uint8Array(0);
    const pieces: Uint8Array[] = [];
    let at = 0;
    while (at < bytes.length) {
      if (this.#missing > 0) {
        const end = Math.min(bytes.length, at + this.#missing);
        this.#missing -= end - at;
        pieces.push(bytes.subarray(at, end));
        at = end;
        continue;
      }
      const rest = bytes.subarray(at);
      const size = sizeOf(rest);
      if (size === 'incomplete') {
        this.#held = rest.slice();
        break;
      }
      this.#count += 1;
      if (size === 'unknown' || isFastPath(rest) || this.#count > PIECES_MAX) {
        // The picture has begun, or this is nothing to cut.
        this.#done = size !== 'unknown' || this.#count > PIECES_MAX;
        pieces.push(rest);
        break;
      }
      this.#missing = size;
    }
    return pieces;
  }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  if (first.length === 0) {
    return second;
  }
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** A server's fast-path update; the four bytes after CredSSP [MS-CSSP §2.2.1] are none. */
function isFastPath(bytes: Uint8Array): boolean {
  return ((bytes[0] ?? 0) & 0x03) === 0 && bytes[0] !== 0x30;
}

/** Length of the message that `bytes` begin with, header included. */
function sizeOf(bytes: Uint8Array): number | 'incomplete' | 'unknown' {
  const [first = 0, second, third, fourth] = bytes;
  if (first === 0x03) {
    if (third === undefined || fourth === undefined) {
      return 'incomplete';
    }
    const size = third * 256 + fourth;
    return second === 0 && size > TPKT_BYTES ? size : 'unknown';
  }
  if (first === 0x30) {
    return sizeOfDer(bytes);
  }
  if (!isFastPath(bytes)) {
    return 'unknown';
  }
  if (second === undefined || (second >= 0x80 && third === undefined)) {
    return 'incomplete';
  }
  const size = second < 0x80 ? second : (second & 0x7f) * 256 + (third ?? 0);
  return size >= FAST_PATH_BYTES_MAX ? size : 'unknown';
}

function sizeOfDer(bytes: Uint8Array): number | 'incomplete' | 'unknown' {
  const second = bytes[1];
  if (second === undefined) {
    return 'incomplete';
  }
  if (second < 0x80) {
    return 2 + second;
  }
  const digits = second & 0x7f;
  const header = 2 + digits;
  if (digits === 0 || header > HEADER_BYTES_MAX) {
    return 'unknown';
  }
  if (bytes.length < header) {
    return 'incomplete';
  }
  let size = 0;
  for (const digit of bytes.subarray(2, header)) {
    size = size * 256 + digit;
  }
  return header + size;
}
