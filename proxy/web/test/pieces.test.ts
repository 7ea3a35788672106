// What the gateway puts together is taken apart again, byte for byte, until the picture begins.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Pieces } from '../client/pieces.js';

const tpkt = (size: number, fill: number) => [0x03, 0x00, size >> 8, size & 255, ...new Array(size - 4).fill(fill)];
const der = (size: number) => [0x30, 0x82, size >> 8, size & 255, ...new Array(size).fill(7)];
const FAST_PATH = [0x00, 0x05, 1, 2, 3];

function cut(...chunks: number[][]): { pieces: number[][]; done: boolean } {
  const stream = new Pieces();
  const pieces = chunks.flatMap((chunk) => stream.take(Uint8Array.from(chunk)).map((piece) => [...piece]));
  return { pieces, done: stream.done };
}

test('messages that came together are handed on one by one', () => {
  const [fontMap, clipboard, display] = [tpkt(20, 1), tpkt(300, 2), tpkt(9, 3)];
  assert.deepEqual(cut([...fontMap, ...clipboard, ...display]).pieces, [fontMap, clipboard, display]);
  assert.deepEqual(cut([...der(500), ...fontMap]).pieces, [der(500), fontMap]);
});

test('from the first picture on nothing is cut', () => {
  const first = tpkt(20, 1);
  const rest = [...FAST_PATH, ...tpkt(9, 3), ...FAST_PATH];
  assert.deepEqual(cut([...first, ...rest], [...first, ...first]), {
    pieces: [first, rest, [...first, ...first]],
    done: true,
  });
});

test('wherever the stream is cut, the same bytes arrive in the same order', () => {
  const stream = [...der(200), 0, 0, 0, 0];
  const tail = [...tpkt(20, 1), ...tpkt(300, 2), ...tpkt(9, 3), ...FAST_PATH, ...FAST_PATH];
  for (let at = 0; at <= tail.length; at += 1) {
    const { pieces, done } = cut(stream, tail.slice(0, at), tail.slice(at));
    assert.deepEqual(pieces.flat(), [...stream, ...tail], `cut at ${at}`);
    assert.equal(done, true, `cut at ${at}`);
  }
});

test('no message shares a piece with the end of the one before, wherever the stream is cut', () => {
  const [first, second] = [tpkt(20, 1), tpkt(30, 2)];
  const stream = [...first, ...second];
  for (let at = 1; at < stream.length; at += 1) {
    const { pieces } = cut(stream.slice(0, at), stream.slice(at));
    let position = 0;
    const ends = pieces.map((piece) => (position += piece.length));
    assert.ok(ends.includes(first.length), `cut at ${at}: ${ends}`);
  }
});

test('bytes of no known kind pass as they came', () => {
  for (const chunk of [[0x22, 0, 0, 0xc0], [0, 0, 0, 0], [0x03, 0x01, 0, 9, 9], [0x30, 0x80, 1], [0x03, 0, 0, 2]]) {
    assert.deepEqual(cut(chunk, tpkt(9, 1)), { pieces: [chunk, tpkt(9, 1)], done: false }, String(chunk));
  }
});

test('a stream that never draws is not cut for ever', () => {
  const stream = new Pieces();
  for (let nth = 0; nth < 600; nth += 1) {
    stream.take(Uint8Array.from(tpkt(8, 1)));
  }
  assert.equal(stream.done, true);
});
