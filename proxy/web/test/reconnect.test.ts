// The page connects again by itself only where time may heal, with growing and bounded waits.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { KNOWN_REASONS } from '../client/ends.js';
import { ATTEMPTS_MAX, delayMs, reconnects } from '../client/reconnect.js';

test('a desktop comes back only after a lost network, a restart or a lost computer', () => {
  const healing = KNOWN_REASONS.filter((reason) => reconnects(reason, true, 0));
  assert.deepEqual([...healing].sort(), ['draining', 'network_lost', 'target_lost']);
});

test('ends that somebody decided are never retried', () => {
  const decided = ['killed', 'revoked', 'expired', 'idle', 'policy_changed', 'wrong_password'];
  for (const reason of [...decided, 'sign_in_refused', 'target_certificate_changed', 'signed_out', 'not_allowed']) {
    assert.equal(reconnects(reason, true, 0), false, reason);
    assert.equal(reconnects(reason, false, 3), false, reason);
  }
});

test('a first attempt that fails is not repeated', () => {
  for (const reason of KNOWN_REASONS) {
    assert.equal(reconnects(reason, false, 0), false, reason);
  }
});

test('while retrying, an unreachable gateway or computer is waited for', () => {
  assert.equal(reconnects('gateway_unreachable', false, 1), true);
  assert.equal(reconnects('target_unreachable', false, 1), true);
});

test('attempts are bounded, for desktops that never last as well', () => {
  assert.equal(reconnects('network_lost', false, ATTEMPTS_MAX - 1), true);
  assert.equal(reconnects('network_lost', false, ATTEMPTS_MAX), false);
  assert.equal(reconnects('network_lost', true, ATTEMPTS_MAX), false);
});

test('waits double from one second to sixteen, a quarter more or less', () => {
  const middle = [1, 2, 3, 4, 5, 6, 10].map((attempt) => delayMs(attempt, 0.5));
  assert.deepEqual(middle, [1_000, 2_000, 4_000, 8_000, 16_000, 16_000, 16_000]);
  assert.equal(delayMs(1, 0), 750);
  assert.equal(delayMs(5, 0.999999), 20_000);
});
