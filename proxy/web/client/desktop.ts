// The desktop page: from the form to the desktop, through losses and back.
//
// What tests and scripts may rely on:
//   body[data-state]       form | connecting | connected | reconnecting | ended
//   body[data-reason]      why the last connection ended (ends.ts: KNOWN_REASONS, or the gateway's label); absent if none
//   body[data-ready]       "true" once the RDP component is loaded and mounted
//   body[data-attempt]     number of the automatic attempt under way or awaited; absent outside reconnecting
//   body[data-session]     id of the live session, once the gateway has told it
//   body[data-latency-ms], body[data-quality] (good | fair | poor | none), body[data-clipboard]
//                          (automatic | manual | waiting | off | unknown)
//   #machine-user, #machine-password, #machine-domain, #connect       the form; #form-problem holds its failure
//   #cancel, #retry-now                                               while connecting and reconnecting
//   #ended-title, #ended-text, #ended-advice, #connect-again, #sign-in-again, #reload
//   #bar[data-open], #bar-handle, #toolbar, #fullscreen, #view, #keys, #clipboard, #all-desktops, #disconnect
//   #warning[data-kind]    expires | idle; #warning-clock
//   #stage canvas          the picture, in an open shadow root

import { announce, byId, show } from './dom.js';
import { type End, endOf, type Failure, reasonOfCode } from './ends.js';
import { furnish } from './furniture.js';
import { freshEnd, Gateway, type Status } from './gateway.js';
import { accountOf } from './keys.js';
import { enter, setReason, showEnd, showForm, showProgress, showStep, state, toast } from './panels.js';
import { delayMs, reconnects, STABLE_MS } from './reconnect.js';
import {
  clipboardState,
  type Credentials,
  failureOf,
  onClipboardPermission,
  pause,
  RemoteDesktop,
  windowSize,
} from './remote.js';
import { watchSockets } from './socket.js';
import { Toolbar } from './toolbar.js';
import { Vigil } from './vigil.js';
import { returnsToForm } from './words.js';

/** How long a Close frame may lag behind the component's own end. */
const CLOSE_FRAME_MS = 1_500;
/** Control learns of an end a moment after the engine. */
const STATUS_LAG_MS = 400;
const RESIZE_SETTLED_MS = 300;
/** The channel for new sizes opens a moment after the desktop: what it is told before is lost. */
const RESIZE_AGAIN_MS = [1_500, 5_000];
/** The old component is gone, with its loops, before a new one is made. */
const COMPONENT_GONE_MS = 600;

const APPLICATION = document.body.dataset['application'] ?? '';
const TITLE = document.body.dataset['title'] ?? '';

const gateway = new Gateway(document.body.dataset['prefix'] ?? '');
const remote = new RemoteDesktop(byId('stage'), () => toolbar.showClipboard('waiting'));
const watch = watchSockets(gateway.socket, {
  opened: () => showStep('Reaching the computer…'),
  firstMessage: () => showStep('Signing in to the computer…'),
});

/**
 * INVARIANT: set only between "Connect" and the end of that connection and its automatic
 * reconnects; every other way out forgets it, so nobody who comes later gets in without it.
 */
let credentials: Credentials | undefined;
/** Grows with every attempt and every cancellation; what belongs to an older one is dropped. */
let generation = 0;
/** Automatic attempts since the last stable desktop. */
let attempts = 0;
let disconnecting = false;
let vigil: Vigil | undefined;
let skipWaiting: (() => void) | undefined;

const toolbar = new Toolbar({
  press: (scancodes) => remote.press(scancodes),
  releaseKeys: () => remote.releaseKeys(),
  setScale: (scale) => remote.setScale(scale),
  setResize: (follows) => follows && remote.resize(windowSize()),
  setUnicode: (unicode) => remote.setUnicode(unicode),
  sendClipboard: () => void exchange(() => remote.sendClipboard(), 'Your clipboard is now on the computer.'),
  takeClipboard: () => void exchange(() => remote.takeClipboard(), 'The computer’s clipboard is now yours.'),
  disconnect: () => disconnect(),
  focusDesktop: () => remote.focus(),
});

start();

function start(): void {
  furnish();
  show(byId('stage'), true);
  byId('connect-form').addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  byId('cancel').addEventListener('click', cancel);
  byId('retry-now').addEventListener('click', () => skipWaiting?.());
  // The answer to the browser's question, or a change in its settings, may have come since.
  byId('clipboard').addEventListener('click', () => void showClipboardState());
  byId('all-desktops').addEventListener('click', () => {
    disconnecting = true;
  });
  byId('connect-again').addEventListener('click', () => showForm(undefined));
  onClipboardPermission(() => state() === 'connected' && void showClipboardState());
  window.addEventListener('online', () => skipWaiting?.());
  window.addEventListener('resize', debounced(RESIZE_SETTLED_MS, followWindow));
  window.addEventListener('beforeunload', (event) => {
    // Ctrl+W is meant for the computer more often than for the tab.
    if (state() === 'connected' && !disconnecting) {
      event.preventDefault();
    }
  });

  if (typeof WebAssembly !== 'object') {
    showEnd({ reason: 'browser_unsupported' });
    return;
  }
  const user = sessionStorage.getItem(userKey());
  byId<HTMLInputElement>('machine-user').value = user ?? '';
  showForm(undefined);
  prepare();
}

/** The user name, not the password, survives a reload of this tab. */
function userKey(): string {
  return `postern.user.${APPLICATION}`;
}

function prepare(): void {
  delete document.body.dataset['ready'];
  remote.prepare().then(
    () => {
      document.body.dataset['ready'] = 'true';
    },
    () => {
      if (state() === 'form') {
        finish({ reason: 'client_failed' });
      }
    },
  );
}

function submit(): void {
  const user = byId<HTMLInputElement>('machine-user');
  const password = byId<HTMLInputElement>('machine-password');
  const account = accountOf(user.value, byId<HTMLInputElement>('machine-domain').value);
  credentials = { ...account, password: password.value };
  password.value = '';
  sessionStorage.setItem(userKey(), user.value);
  attempts = 0;
  showProgress('connecting', 'Checking your access…');
  void attempt();
}

/** One attempt, from the renewal of access to the end of the desktop. */
async function attempt(): Promise<void> {
  const mine = ++generation;
  const current = () => mine === generation;
  const account = credentials;
  if (account === undefined) {
    return;
  }
  disconnecting = false;
  // What waited on the clipboard has gone with the old connection.
  delete document.body.dataset['clipboard'];
  watch.forget();
  const refusal = await gateway.renew();
  if (!current()) {
    return;
  }
  if (refusal === 'signed_out' && attempts === 0) {
    // The page itself sends people to the login and brings them back.
    credentials = undefined;
    location.assign(gateway.page);
    return;
  }
  if (refusal !== undefined) {
    await goOn({ reason: refusal }, false);
    return;
  }
  const before = await gateway.status();
  if (!current()) {
    return;
  }
  showStep('Asking the gateway…');
  let failure: Failure | undefined;
  let connectedAt: number | undefined;
  try {
    await remote.prepare();
    if (!current()) {
      return;
    }
    const size = windowSize();
    const { ended } = await remote.connect(account, gateway.socket, APPLICATION, size);
    if (!current()) {
      return;
    }
    connectedAt = performance.now();
    showDesktop(before);
    for (const ms of RESIZE_AGAIN_MS) {
      setTimeout(() => {
        const now = windowSize();
        if (current() && (now.width !== size.width || now.height !== size.height)) {
          followWindow();
        }
      }, ms);
    }
    failure = await ended;
  } catch (error) {
    failure = failureOf(error);
  }
  if (!current()) {
    return;
  }
  leaveDesktop();
  await conclude(before, failure, connectedAt, current);
}

function showDesktop(before: Status | undefined): void {
  setReason(undefined);
  delete document.body.dataset['attempt'];
  enter('connected');
  remote.setScale(toolbar.scale);
  remote.setUnicode(toolbar.unicode);
  toolbar.appear();
  announce(`Connected to ${TITLE}. Control, Alt and Home open the controls.`);
  void showClipboardState();
  vigil = new Vigil(gateway, before, (samples) => toolbar.showLatency(samples));
  remote.focus();
}

function leaveDesktop(): void {
  vigil?.end();
  vigil = undefined;
  if (state() === 'connected') {
    toolbar.vanish();
  }
}

/** Finds out how it ended, says so, and either goes on or stops. */
async function conclude(
  before: Status | undefined,
  failure: Failure | undefined,
  connectedAt: number | undefined,
  current: () => boolean,
): Promise<void> {
  const connected = connectedAt !== undefined;
  if (connectedAt !== undefined && performance.now() - connectedAt >= STABLE_MS) {
    attempts = 0;
  }
  if (disconnecting) {
    watch.socket()?.drop();
    finish({ reason: 'disconnected' });
    return;
  }
  if (connected) {
    showProgress('reconnecting', 'Finding out what happened…');
  }
  const watched = watch.socket();
  await watched?.closed(CLOSE_FRAME_MS);
  watched?.drop();
  if (!current()) {
    return;
  }
  const judge = (status: Status | undefined): End =>
    endOf({ connected, socket: watched?.end, failure, ended: freshEnd(before, status) });

  const ofCode = reasonOfCode(watched?.end.code);
  if (ofCode !== undefined && ofCode !== 'protocol_error') {
    // Certain already: say it at once, and add the gateway's sentence when it comes.
    const end = judge(undefined);
    await goOn(end, connected);
    if (current() && state() === 'ended') {
      const told = judge(await lateStatus(before));
      if (current() && state() === 'ended' && told.sentence !== undefined) {
        showEnd(told);
      }
    }
    return;
  }
  const status = await lateStatus(before);
  if (current()) {
    await goOn(judge(status), connected);
  }
}

/** The status once it tells of a new end, asked for twice at most. */
async function lateStatus(before: Status | undefined): Promise<Status | undefined> {
  const status = await gateway.status();
  if (status === undefined || freshEnd(before, status) !== undefined) {
    return status;
  }
  await pause(STATUS_LAG_MS);
  return gateway.status();
}

async function goOn(end: End, connected: boolean): Promise<void> {
  if (credentials === undefined || !reconnects(end.reason, connected, attempts)) {
    finish(end);
    return;
  }
  attempts += 1;
  setReason(end.reason);
  document.body.dataset['attempt'] = String(attempts);
  remote.dispose();
  const mine = generation;
  await waitFor(delayMs(attempts, Math.random()), end);
  if (mine === generation) {
    void attempt();
  }
}

/** Counts down to the next attempt; "Try now" and the network's return end it early. */
async function waitFor(ms: number, lost: End): Promise<void> {
  const until = performance.now() + ms;
  let skipped = false;
  skipWaiting = () => {
    skipped = true;
  };
  const mine = generation;
  showProgress('reconnecting', '', lost);
  show(byId('retry-now'), true);
  while (!skipped && mine === generation && performance.now() < until) {
    const seconds = Math.ceil((until - performance.now()) / 1000);
    showStep(`Trying again in ${seconds} s (attempt ${attempts}).`);
    await pause(100);
  }
  skipWaiting = undefined;
  if (mine === generation) {
    show(byId('retry-now'), false);
    showStep('Checking your access…');
  }
}

function finish(end: End): void {
  credentials = undefined;
  delete document.body.dataset['attempt'];
  remote.dispose();
  if (returnsToForm(end.reason)) {
    showForm(end);
  } else {
    showEnd(end);
  }
  if (end.reason !== 'client_failed') {
    setTimeout(prepare, COMPONENT_GONE_MS);
  }
}

function disconnect(): void {
  disconnecting = true;
  const mine = generation;
  remote.shutdown();
  // A component that does not end by itself is taken away.
  setTimeout(() => {
    if (mine === generation && state() === 'connected') {
      generation += 1;
      leaveDesktop();
      watch.socket()?.drop();
      finish({ reason: 'disconnected' });
    }
  }, CLOSE_FRAME_MS);
}

function cancel(): void {
  generation += 1;
  const wasConnected = state() === 'reconnecting';
  watch.socket()?.drop();
  if (wasConnected) {
    finish({ reason: document.body.dataset['reason'] ?? 'disconnected' });
    return;
  }
  credentials = undefined;
  remote.dispose();
  showForm(undefined);
  setTimeout(prepare, COMPONENT_GONE_MS);
}

function followWindow(): void {
  if (state() === 'connected' && toolbar.resizes) {
    remote.resize(windowSize());
  }
}

async function showClipboardState(): Promise<void> {
  const clipboard = await clipboardState();
  // Something that waits on the computer's clipboard is the more useful thing to say.
  if (document.body.dataset['clipboard'] !== 'waiting') {
    toolbar.showClipboard(clipboard);
  }
}

async function exchange(run: () => Promise<void>, done: string): Promise<void> {
  try {
    await run();
    toast(done);
    toolbar.close();
    delete document.body.dataset['clipboard'];
    await showClipboardState();
  } catch {
    toast('That did not work: the clipboard is empty, or the browser does not allow it.');
  }
  remote.focus();
}

function debounced(ms: number, run: () => void): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, ms);
  };
}

document.title = TITLE === '' ? document.title : `${TITLE} · ${document.body.dataset['organisation'] ?? ''}`;
