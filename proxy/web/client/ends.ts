// How a connection ended, worked out from everything that the page can observe. No DOM, no clock.

/** Ends that the page knows by name; the gateway may send further labels, with a sentence. */
export const KNOWN_REASONS = [
  // Close codes of the gateway, in the order of their numbers from 4000.
  'killed',
  'revoked',
  'policy_changed',
  'expired',
  'idle',
  'draining',
  'target_lost',
  'target_unreachable',
  'target_certificate_changed',
  'target_security_refused',
  'request_refused',
  // What the page finds out itself.
  'target_closed',
  'disconnected',
  'network_lost',
  'gateway_unreachable',
  'protocol_error',
  'signed_out',
  'not_allowed',
  'wrong_password',
  'sign_in_refused',
  'access_denied',
  'target_tls_failed',
  'browser_unsupported',
  'client_failed',
] as const;

export type Reason = (typeof KNOWN_REASONS)[number];

const GATEWAY_CLOSE_CODE_FIRST = 4000;
const GATEWAY_CLOSE_CODES = 11;

/** `IronErrorKind` of the RDP component. */
export const enum ErrorKind {
  General = 0,
  WrongPassword = 1,
  LogonFailure = 2,
  AccessDenied = 3,
  RdCleanPath = 4,
  ProxyConnect = 5,
  NegotiationFailure = 6,
}

/** What the RDP component threw. */
export interface Failure {
  kind: number;
  text: string;
  httpStatus?: number;
  socketError?: number;
  tlsAlert?: number;
}

/** What was seen of the connection's WebSocket. */
export interface SocketEnd {
  /** The upgrade succeeded. */
  opened: boolean;
  /** Messages received; the first one is the answer to the RDP component's request. */
  messages: number;
  /** The code of the Close frame, 1006 when there was none; undefined while not closed. */
  code: number | undefined;
  /** The page closed it first, so a normal code says nothing. */
  closedHere: boolean;
}

/** `ended` of `PREFIX/status`. */
export interface Ended {
  reason: string;
  sentence: string;
  at: number;
}

export interface Observed {
  /** The desktop had been on the screen. */
  connected: boolean;
  socket: SocketEnd | undefined;
  failure: Failure | undefined;
  /** What the gateway says of this very attempt. */
  ended: Ended | undefined;
}

export interface End {
  reason: string;
  /** The gateway's own words, when it has some. */
  sentence?: string;
}

export function isKnown(reason: string): reason is Reason {
  return (KNOWN_REASONS as readonly string[]).includes(reason);
}

/** The reason that a Close code stands for; undefined for codes that say nothing. */
export function reasonOfCode(code: number | undefined): Reason | undefined {
  if (code === undefined) {
    return undefined;
  }
  const index = code - GATEWAY_CLOSE_CODE_FIRST;
  if (index >= 0 && index < GATEWAY_CLOSE_CODES) {
    return KNOWN_REASONS[index];
  }
  switch (code) {
    case 1001: // [RFC 6455 §7.4.1] Going away.
    case 1012: // Service restart.
      return 'draining';
    case 1002:
    case 1003:
    case 1007:
    case 1008:
    case 1009:
    case 1011:
      return 'protocol_error';
    default:
      return undefined;
  }
}

/**
 * Combines close code, the gateway's word and the component's error, most certain first. The
 * component reports most things as a general error, so its word comes last.
 */
export function endOf(observed: Observed): End {
  if (hungUpAtSignIn(observed)) {
    return { reason: endOfAttempt(observed) };
  }
  const ofCode = reasonOfCode(observed.socket?.code);
  if (ofCode !== undefined && ofCode !== 'protocol_error') {
    return withSentence(ofCode, observed.ended);
  }
  if (observed.ended !== undefined && isTelling(observed.ended.reason)) {
    return withSentence(observed.ended.reason, observed.ended);
  }
  if (ofCode !== undefined) {
    return { reason: ofCode };
  }
  return { reason: observed.connected ? endOfDesktop(observed) : endOfAttempt(observed) };
}

/**
 * The computer broke off after the gateway had connected us and before there was a desktop. Whether
 * it says good-bye or resets the connection, which the gateway calls lost, is a matter of timing.
 */
function hungUpAtSignIn({ connected, socket, failure }: Observed): boolean {
  return (
    !connected &&
    reasonOfCode(socket?.code) === 'target_lost' &&
    (socket?.messages ?? 0) > 0 &&
    failure?.kind !== ErrorKind.RdCleanPath
  );
}

/** The other reasons are consequences of what the page or the computer did first. */
function isTelling(reason: string): boolean {
  return reason !== 'target_closed' && !reason.includes('browser') && !reason.includes('client');
}

function withSentence(reason: string, ended: Ended | undefined): End {
  return ended !== undefined && ended.reason === reason && ended.sentence !== ''
    ? { reason, sentence: ended.sentence }
    : { reason };
}

function endOfDesktop({ socket, failure }: Observed): Reason {
  if (failure === undefined || (socket?.code === 1000 && !socket.closedHere)) {
    return 'target_closed';
  }
  // An error while the socket was still whole is the component's own.
  return socket?.closedHere && socket.code !== 1006 ? 'protocol_error' : 'network_lost';
}

function endOfAttempt({ socket, failure }: Observed): Reason {
  if (socket === undefined || !socket.opened) {
    return failure !== undefined && socket === undefined && failure.kind !== ErrorKind.ProxyConnect
      ? 'client_failed'
      : 'gateway_unreachable';
  }
  switch (failure?.kind) {
    case ErrorKind.WrongPassword:
    case ErrorKind.LogonFailure:
      return 'wrong_password';
    case ErrorKind.AccessDenied:
      return 'access_denied';
    case ErrorKind.NegotiationFailure:
      return 'target_security_refused';
    case ErrorKind.RdCleanPath:
      return endOfRequest(failure);
    default:
      break;
  }
  if (socket.messages === 0) {
    return 'gateway_unreachable';
  }
  // The gateway has connected us, and then the computer hung up: with network level
  // authentication that is how most servers answer a wrong password.
  return failure !== undefined && /credssp|sspi|ntlm|logon|nla/i.test(failure.text)
    ? 'wrong_password'
    : 'sign_in_refused';
}

function endOfRequest(failure: Failure): Reason {
  if (failure.httpStatus === 401) {
    return 'signed_out';
  }
  if (failure.httpStatus === 403) {
    return 'not_allowed';
  }
  if (failure.socketError !== undefined) {
    return 'target_unreachable';
  }
  return failure.tlsAlert !== undefined ? 'target_tls_failed' : 'request_refused';
}
