// Warnings before a session ends.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { clockText, type LiveSession, ownSession, spokenText, warningAt } from '../client/countdown.js';

const SESSION: LiveSession = { id: 'a', opened_at: 1_000, valid_until: 1_000 + 28_800, idle_s: 1_800 };

test('a long session is quiet until five minutes before its end', () => {
  assert.equal(warningAt(SESSION, SESSION.valid_until - 301, 0), undefined);
  assert.deepEqual(warningAt(SESSION, SESSION.valid_until - 300, 0), { kind: 'expires', seconds: 300 });
  assert.deepEqual(warningAt(SESSION, SESSION.valid_until + 5, 0), { kind: 'expires', seconds: 0 });
});

test('a short session warns in its last quarter', () => {
  const short = { ...SESSION, valid_until: SESSION.opened_at + 40 };
  assert.equal(warningAt(short, short.valid_until - 11, 0), undefined);
  assert.deepEqual(warningAt(short, short.valid_until - 10, 0), { kind: 'expires', seconds: 10 });
});

test('idleness warns a minute ahead and input takes the warning away', () => {
  assert.equal(warningAt(SESSION, 2_000, 1_739), undefined);
  assert.deepEqual(warningAt(SESSION, 2_000, 1_740), { kind: 'idle', seconds: 60 });
  assert.equal(warningAt(SESSION, 2_000, 0), undefined);
});

test('a short idle limit warns in its last quarter', () => {
  const short = { ...SESSION, idle_s: 20 };
  assert.equal(warningAt(short, 2_000, 14), undefined);
  assert.deepEqual(warningAt(short, 2_000, 15), { kind: 'idle', seconds: 5 });
});

test('no idle limit, no idle warning', () => {
  assert.equal(warningAt({ ...SESSION, idle_s: 0 }, 2_000, 1e6), undefined);
});

test('the more urgent warning is shown', () => {
  assert.equal(warningAt(SESSION, SESSION.valid_until - 100, 1_790)?.kind, 'idle');
  assert.equal(warningAt(SESSION, SESSION.valid_until - 5, 1_790)?.kind, 'expires');
});

test('the clock', () => {
  const cases: [number, string][] = [
    [0, '0:00'],
    [-3, '0:00'],
    [9.2, '0:10'],
    [65, '1:05'],
    [300, '5:00'],
    [3_723, '1:02:03'],
  ];
  for (const [seconds, text] of cases) {
    assert.equal(clockText(seconds), text);
  }
});

test('a screen reader hears few different texts', () => {
  const texts = new Set(Array.from({ length: 61 }, (_, seconds) => spokenText({ kind: 'idle', seconds })));
  assert.equal(texts.size, 2);
  assert.ok(spokenText({ kind: 'expires', seconds: 300 }).includes('5 minutes'));
});

test('the own session is the new one, or the newest if none is', () => {
  const older = { ...SESSION, id: 'older', opened_at: 900 };
  const newer = { ...SESSION, id: 'newer', opened_at: 2_000 };
  assert.equal(ownSession([older, newer], new Set(['older']))?.id, 'newer');
  assert.equal(ownSession([older, newer], new Set(['newer']))?.id, 'older');
  assert.equal(ownSession([older, newer], new Set(['older', 'newer']))?.id, 'newer');
  assert.equal(ownSession([], new Set()), undefined);
});
