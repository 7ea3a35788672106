// Ends in words that a person understands, each with what to do next. No DOM.

import { type End, isKnown, type Reason } from './ends.js';

/** What the page offers after an end. */
export type Offer = 'again' | 'sign-in' | 'reload' | 'none';

export interface Words {
  title: string;
  sentence: string;
  advice: string;
  offer: Offer;
}

type Line = [title: string, sentence: string, advice: string, offer: Offer];

const LINES: Record<Reason, Line> = {
  disconnected: [
    'Disconnected',
    'You closed the connection. Programs on the computer keep running.',
    'Connect again to carry on where you left off.',
    'again',
  ],
  target_closed: [
    'The computer ended the session',
    'You signed out on the computer, or somebody signed in there instead.',
    'Connect again to start a new session.',
    'again',
  ],
  killed: [
    'An administrator ended this session',
    'The connection was closed on purpose. Programs on the computer may still be running.',
    'Ask your administrator before you connect again.',
    'again',
  ],
  revoked: [
    'Your access was withdrawn',
    'You signed out elsewhere, or an administrator ended your sign-in.',
    'Sign in again. If that does not help, ask your administrator.',
    'sign-in',
  ],
  policy_changed: [
    'The rules for this computer have changed',
    'They no longer allow you to use it.',
    'If you need it, ask your administrator for access.',
    'none',
  ],
  expired: [
    'Your time on this computer is over',
    'Sessions have a fixed length, and this one has reached its end. Programs on the computer keep running.',
    'Connect again for a new session. You may be asked to sign in first.',
    'again',
  ],
  idle: [
    'Closed because nobody was using it',
    'There was no input for a while, so the connection was closed to keep the computer safe.',
    'Connect again to carry on where you left off.',
    'again',
  ],
  draining: [
    'The gateway is shutting down',
    'It is being restarted or updated.',
    'Wait a minute, then connect again.',
    'again',
  ],
  target_lost: [
    'The computer stopped answering',
    'The gateway lost its connection to the computer. It may be restarting or have gone to sleep.',
    'Wait a minute, then connect again. If it stays away, somebody near it has to look.',
    'again',
  ],
  target_unreachable: [
    'The computer cannot be reached',
    'It did not answer the gateway. It may be switched off, asleep or not on the network.',
    'Check that it is switched on, then try again. If it is, tell your administrator.',
    'again',
  ],
  target_certificate_changed: [
    'The computer’s identity has changed',
    'It shows another certificate than before. It may have been reinstalled, or something is posing as it, so nothing was sent to it.',
    'Tell your administrator, who can check it and accept the new certificate.',
    'none',
  ],
  target_security_refused: [
    'The computer’s security is too weak',
    'It does not offer the protection that the gateway demands (network level authentication or TLS).',
    'Tell your administrator: the setting has to change on the computer.',
    'none',
  ],
  target_tls_failed: [
    'No safe connection to the computer',
    'The computer answered, but its encryption could not be set up or its certificate is not trusted.',
    'Tell your administrator.',
    'again',
  ],
  request_refused: [
    'The gateway refused the connection',
    'What the page asked for was not acceptable to the gateway.',
    'Reload the page and try again. If it happens again, tell your administrator.',
    'reload',
  ],
  network_lost: [
    'The network connection was lost',
    'Your device could not reach the gateway any more. Programs on the computer keep running.',
    'Check your network, then connect again.',
    'again',
  ],
  gateway_unreachable: [
    'The gateway cannot be reached',
    'It did not answer. Your network may be down, or the gateway is being restarted.',
    'Check your network, wait a moment, then try again.',
    'again',
  ],
  protocol_error: [
    'The connection broke',
    'The computer and this page did not understand each other.',
    'Connect again. If it happens again, tell your administrator what you were doing.',
    'again',
  ],
  signed_out: [
    'You are signed out',
    'Your sign-in has ended.',
    'Sign in again; you come back here afterwards.',
    'sign-in',
  ],
  not_allowed: [
    'This computer is not open to you',
    'The rules do not allow you to use it from here now.',
    'If you need it, ask your administrator for access.',
    'none',
  ],
  wrong_password: [
    'The computer did not accept the password',
    'User name, domain or password is wrong for this computer.',
    'Check them and try again. They can differ from those of the gateway.',
    'again',
  ],
  sign_in_refused: [
    'The computer did not sign you in',
    'It closed the connection during sign-in. Most often the user name, domain or password is wrong.',
    'Check them and try again. They can differ from those of the gateway.',
    'again',
  ],
  access_denied: [
    'The computer refused your account',
    'The password is right, but this account may not use the computer remotely.',
    'Try another account, or ask your administrator to allow this one.',
    'again',
  ],
  browser_unsupported: [
    'This browser cannot show a desktop',
    'It lacks WebAssembly, or it is switched off.',
    'Use a current version of Chrome, Edge, Firefox or Safari.',
    'none',
  ],
  client_failed: [
    'The desktop could not start',
    'A part of this page did not load or failed.',
    'Reload the page. If it happens again, tell your administrator.',
    'reload',
  ],
};

const UNKNOWN: Line = [
  'The connection was closed',
  'The gateway ended the connection.',
  'Try again. If it happens again, tell your administrator.',
  'again',
];

/** The gateway's own sentence wins over ours: it knows names and times. */
export function wordsFor(end: End): Words {
  const [title, sentence, advice, offer] = isKnown(end.reason) ? LINES[end.reason] : UNKNOWN;
  if (end.sentence === undefined) {
    return { title, sentence, advice, offer };
  }
  // Its sentence says what to do as well.
  return { title, sentence: end.sentence, advice: '', offer };
}

/** Ends after which only other credentials help: the form comes back with the words above it. */
export function returnsToForm(reason: string): boolean {
  return reason === 'wrong_password' || reason === 'sign_in_refused' || reason === 'access_denied';
}
