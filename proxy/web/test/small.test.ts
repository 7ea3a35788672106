// Search, latency, keys, status: the page's other decisions.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { freshEnd, parseStatus } from '../client/gateway.js';
import { accountOf, COMBINATIONS } from '../client/keys.js';
import { qualityOf, SAMPLES_MAX, sparkline, withSample } from '../client/latency.js';
import { nextTheme } from '../client/preferences.js';
import { foundText, matches, stepFrom } from '../client/search.js';

test('search takes every word, in title or name, whatever the case and accents', () => {
  assert.ok(matches('', 'Lab PC', 'lab'));
  assert.ok(matches('  PC lab ', 'Lab PC', 'lab'));
  assert.ok(matches('zurich', 'Zürich büro', 'zh-1'));
  assert.ok(matches('zh-1', 'Zürich büro', 'zh-1'));
  assert.ok(!matches('lab mac', 'Lab PC', 'lab'));
});

test('arrow keys walk the grid and stop at its edges', () => {
  assert.equal(stepFrom(0, 'ArrowRight', 5, 3), 1);
  assert.equal(stepFrom(1, 'ArrowDown', 5, 3), 4);
  assert.equal(stepFrom(2, 'ArrowDown', 5, 3), undefined);
  assert.equal(stepFrom(0, 'ArrowLeft', 5, 3), undefined);
  assert.equal(stepFrom(3, 'Home', 5, 3), 0);
  assert.equal(stepFrom(0, 'End', 5, 3), 4);
  assert.equal(stepFrom(0, 'x', 5, 3), undefined);
});

test('what search found is said', () => {
  assert.deepEqual([0, 1, 2].map(foundText), ['Nothing matches', 'One desktop matches', '2 desktops match']);
});

test('latency is judged by the median and keeps a bounded history', () => {
  assert.equal(qualityOf([]), 'none');
  assert.equal(qualityOf([10, 900, 12]), 'good');
  assert.equal(qualityOf([100, 110, 120]), 'fair');
  assert.equal(qualityOf([300, 310, 20]), 'poor');
  assert.equal(qualityOf([10, 10, undefined]), 'poor');
  let samples: readonly (number | undefined)[] = [];
  for (let index = 0; index < 100; index += 1) {
    samples = withSample(samples, index);
  }
  assert.equal(samples.length, SAMPLES_MAX);
  assert.equal(samples[samples.length - 1], 99);
});

test('the sparkline stays in its box', () => {
  const points = sparkline([0, 5000, undefined, 40], 60, 18).split(' ');
  assert.equal(points.length, 4);
  for (const point of points) {
    const [x = -1, y = -1] = point.split(',').map(Number);
    assert.ok(x >= 0 && x <= 60 && y >= 0 && y <= 18, point);
  }
});

test('a domain before the user name is taken apart, an address is not', () => {
  assert.deepEqual(accountOf(' CORP\\alice ', 'x'), { user: 'alice', domain: 'CORP' });
  assert.deepEqual(accountOf('alice@corp.example', ' '), { user: 'alice@corp.example', domain: '' });
  assert.deepEqual(accountOf('alice', 'CORP'), { user: 'alice', domain: 'CORP' });
});

test('Ctrl+Alt+Del ends with the extended delete key', () => {
  assert.deepEqual(COMBINATIONS['ctrl-alt-del'], [0x1d, 0x38, 0xe053]);
});

test('a status of the wrong shape is taken as far as it is right', () => {
  assert.equal(parseStatus(null), undefined);
  assert.equal(parseStatus({ now: 'x' }), undefined);
  const session = { id: 'a', opened_at: 1, valid_until: 2, idle_s: 3 };
  const status = parseStatus({ now: 5, live: [session, { id: 7 }], ended: { reason: 'idle', at: 4 } });
  assert.deepEqual(status, { now: 5, live: [session], ended: { reason: 'idle', sentence: '', at: 4 } });
  assert.equal(parseStatus({ now: 5, live: [], ended: null })?.ended, undefined);
});

test('only an end that was not there before is fresh', () => {
  const at = (seconds: number) => parseStatus({ now: 9, live: [], ended: { reason: 'idle', sentence: '', at: seconds } });
  const none = parseStatus({ now: 9, live: [] });
  assert.equal(freshEnd(at(1), at(1)), undefined);
  assert.equal(freshEnd(at(1), at(2))?.at, 2);
  assert.equal(freshEnd(none, at(2))?.at, 2);
  assert.equal(freshEnd(undefined, at(2)), undefined);
  assert.equal(freshEnd(none, none), undefined);
});

test('the theme switch goes round', () => {
  assert.deepEqual([nextTheme('system'), nextTheme('light'), nextTheme('dark')], ['light', 'dark', 'system']);
});
