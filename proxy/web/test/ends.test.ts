// How ends are worked out from close codes, the gateway's word and the component's errors.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { type Ended, endOf, type Failure, KNOWN_REASONS, type Observed, reasonOfCode } from '../client/ends.js';

const OPEN = { opened: true, messages: 3, code: undefined, closedHere: false } as const;
const GENERAL: Failure = { kind: 0, text: '' };

function ended(reason: string, sentence = ''): Ended {
  return { reason, sentence, at: 1_700_000_000 };
}

function check(name: string, observed: Partial<Observed>, reason: string, sentence?: string): void {
  test(name, () => {
    const end = endOf({ connected: false, socket: OPEN, failure: GENERAL, ended: undefined, ...observed });
    assert.equal(end.reason, reason);
    assert.equal(end.sentence, sentence);
  });
}

test('every close code of the gateway stands for its label', () => {
  const codes: [number, string][] = [
    [4000, 'killed'],
    [4001, 'revoked'],
    [4002, 'policy_changed'],
    [4003, 'expired'],
    [4004, 'idle'],
    [4005, 'draining'],
    [4006, 'target_lost'],
    [4007, 'target_unreachable'],
    [4008, 'target_certificate_changed'],
    [4009, 'target_security_refused'],
    [4010, 'request_refused'],
    [1001, 'draining'],
    [1002, 'protocol_error'],
    [1003, 'protocol_error'],
    [1009, 'protocol_error'],
  ];
  for (const [code, reason] of codes) {
    assert.equal(reasonOfCode(code), reason, String(code));
  }
  for (const code of [undefined, 1000, 1005, 1006, 3999, 4011, 4999]) {
    assert.equal(reasonOfCode(code), undefined, String(code));
  }
});

test('no reason is named twice', () => {
  assert.equal(new Set(KNOWN_REASONS).size, KNOWN_REASONS.length);
});

for (const code of [4000, 4003, 4004, 4008]) {
  check(
    `close code ${code} wins over a general error`,
    { connected: true, socket: { ...OPEN, code } },
    reasonOfCode(code) ?? '',
  );
}
check(
  'the sentence of the gateway comes along when it is about the same end',
  { connected: true, socket: { ...OPEN, code: 4000 }, ended: ended('killed', 'Ended by carol.') },
  'killed',
  'Ended by carol.',
);
check(
  'a sentence about another end is left out',
  { connected: true, socket: { ...OPEN, code: 4000 }, ended: ended('idle', 'Idle.') },
  'killed',
);
check(
  'a refused upgrade is told by the status, with labels that the page does not know',
  {
    socket: { opened: false, messages: 0, code: 1006, closedHere: false },
    failure: { kind: 5, text: '' },
    ended: ended('sessions_per_user', 'You have 20 sessions open. Close one.'),
  },
  'sessions_per_user',
  'You have 20 sessions open. Close one.',
);
check(
  'a refused upgrade without a word is an unreachable gateway',
  { socket: { opened: false, messages: 0, code: 1006, closedHere: false }, failure: { kind: 5, text: '' } },
  'gateway_unreachable',
);
check('a component that fails before any socket is at fault itself', { socket: undefined }, 'client_failed');
check('wrong password by kind 1', { failure: { kind: 1, text: '' } }, 'wrong_password');
check('wrong password by kind 2', { failure: { kind: 2, text: '' } }, 'wrong_password');
check('wrong password by the text of a general error', { failure: { kind: 0, text: 'CredSSP: STATUS' } }, 'wrong_password');
check(
  'a computer that hangs up during sign-in refused it',
  { socket: { ...OPEN, code: 1000 }, ended: ended('target_closed') },
  'sign_in_refused',
);
for (const [failure, reason] of [[{ kind: 1, text: '' }, 'wrong_password'], [GENERAL, 'sign_in_refused']] as const) {
  check(
    `a connection that is reset during sign-in is the computer's refusal, too: ${reason}`,
    { socket: { ...OPEN, code: 4006 }, failure, ended: ended('target_lost') },
    reason,
  );
}
check(
  'a computer that speaks no RDP is lost, not refusing',
  { socket: { ...OPEN, code: 4006 }, failure: { kind: 4, text: '', socketError: 10054 } },
  'target_lost',
);
check(
  'what the browser did is not a reason',
  { failure: { kind: 1, text: '' }, ended: ended('closed_by_browser') },
  'wrong_password',
);
check('access denied', { failure: { kind: 3, text: '' } }, 'access_denied');
check('weak security by the negotiation error', { failure: { kind: 6, text: '' } }, 'target_security_refused');
check('request error with 401', { failure: { kind: 4, text: '', httpStatus: 401 } }, 'signed_out');
check('request error with 403', { failure: { kind: 4, text: '', httpStatus: 403 } }, 'not_allowed');
check('request error with a socket error', { failure: { kind: 4, text: '', socketError: 10061 } }, 'target_unreachable');
check('request error with a TLS alert', { failure: { kind: 4, text: '', tlsAlert: 40 } }, 'target_tls_failed');
check('request error without details', { failure: { kind: 4, text: '' } }, 'request_refused');
check('a desktop that ends gracefully was closed by the computer', { connected: true, failure: undefined }, 'target_closed');
check('close code 1000 as well', { connected: true, socket: { ...OPEN, code: 1000 } }, 'target_closed');
check('no Close frame is a lost network', { connected: true, socket: { ...OPEN, code: 1006 } }, 'network_lost');
check('a socket that never closes is a lost network', { connected: true }, 'network_lost');
check(
  'a component that gives up on a whole socket is a protocol error',
  { connected: true, socket: { ...OPEN, code: 1000, closedHere: true } },
  'protocol_error',
);
