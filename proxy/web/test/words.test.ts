// Every end has words, and what is offered after it fits.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { KNOWN_REASONS } from '../client/ends.js';
import { returnsToForm, wordsFor } from '../client/words.js';

test('every known reason has a title, a sentence and advice in plain words', () => {
  for (const reason of KNOWN_REASONS) {
    const { title, sentence, advice } = wordsFor({ reason });
    assert.ok(title.length > 5 && !title.endsWith('.'), reason);
    assert.ok(sentence.endsWith('.') && advice.endsWith('.'), reason);
    assert.ok(!`${title} ${sentence} ${advice}`.includes('_'), `${reason} shows a label`);
  }
});

test('titles differ, so that ends can be told apart', () => {
  const titles = KNOWN_REASONS.map((reason) => wordsFor({ reason }).title);
  assert.equal(new Set(titles).size, titles.length);
});

test('the sentence of the gateway replaces ours', () => {
  const words = wordsFor({ reason: 'killed', sentence: 'Carol ended it.' });
  assert.equal(words.sentence, 'Carol ended it.');
  assert.equal(words.title, wordsFor({ reason: 'killed' }).title);
});

test('an unknown label still gets words', () => {
  const words = wordsFor({ reason: 'something_new', sentence: 'Something new.' });
  assert.equal(words.sentence, 'Something new.');
  assert.equal(words.offer, 'again');
});

test('signed out leads to the login', () => {
  assert.equal(wordsFor({ reason: 'signed_out' }).offer, 'sign-in');
  assert.equal(wordsFor({ reason: 'revoked' }).offer, 'sign-in');
});

test('nothing to click is offered where only an administrator helps', () => {
  for (const reason of ['target_certificate_changed', 'target_security_refused', 'not_allowed', 'policy_changed']) {
    assert.equal(wordsFor({ reason }).offer, 'none', reason);
  }
});

test('only refused credentials bring the form back', () => {
  const back = KNOWN_REASONS.filter((reason) => returnsToForm(reason));
  assert.deepEqual([...back], ['wrong_password', 'sign_in_refused', 'access_denied']);
});
