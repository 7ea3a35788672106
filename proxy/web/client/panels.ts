// The panels around the desktop: form, progress, end. One state at a time, on the body.

import { announce, byId, show } from './dom.js';
import type { End } from './ends.js';
import { wordsFor } from './words.js';

export type State = 'form' | 'connecting' | 'connected' | 'reconnecting' | 'ended';

const PANEL_OF: Record<State, string | undefined> = {
  form: 'form-panel',
  connecting: 'progress-panel',
  connected: undefined,
  reconnecting: 'progress-panel',
  ended: 'ended-panel',
};

const TITLE = document.body.dataset['title'] ?? '';

export function state(): State {
  return (document.body.dataset['state'] as State | undefined) ?? 'form';
}

export function enter(next: State): void {
  document.body.dataset['state'] = next;
  for (const id of ['form-panel', 'progress-panel', 'ended-panel']) {
    show(byId(id), id === PANEL_OF[next]);
  }
}

/** The form, with the words of the last end above it if there was one. */
export function showForm(end: End | undefined): void {
  setReason(end?.reason);
  enter('form');
  const problem = byId('form-problem');
  show(problem, end !== undefined);
  if (end !== undefined) {
    const { title, sentence, advice } = wordsFor(end);
    byId('form-problem-title').textContent = `${title}.`;
    byId('form-problem-text').textContent = `${sentence} ${advice}`;
  }
  const user = byId<HTMLInputElement>('machine-user');
  (user.value === '' ? user : byId('machine-password')).focus();
}

export function showProgress(next: 'connecting' | 'reconnecting', text: string, lost?: End): void {
  const title =
    next === 'connecting' ? `Connecting to ${TITLE}` : lost ? wordsFor(lost).title : `Connection to ${TITLE} lost`;
  const changed = state() !== next;
  setReason(next === 'connecting' ? undefined : document.body.dataset['reason']);
  enter(next);
  byId('progress-title').textContent = title;
  show(byId('retry-now'), false);
  showStep(text);
  if (changed) {
    announce(`${title}. ${text}`);
    byId('cancel').focus();
  }
}

export function showStep(text: string): void {
  byId('progress-text').textContent = text;
}

export function showEnd(end: End): void {
  const { title, sentence, advice, offer } = wordsFor(end);
  setReason(end.reason);
  byId('ended-title').textContent = title;
  byId('ended-text').textContent = sentence;
  byId('ended-advice').textContent = advice;
  byId('ended-reason').textContent = end.reason;
  show(byId('ended-detail'), end.reason !== 'disconnected');
  show(byId('connect-again'), offer === 'again');
  show(byId('sign-in-again'), offer === 'sign-in');
  show(byId('reload'), offer === 'reload');
  const entering = state() !== 'ended';
  enter('ended');
  announce(`${title}. ${sentence} ${advice}`);
  if (entering) {
    byId('ended-panel').focus();
  }
}

export function setReason(reason: string | undefined): void {
  if (reason === undefined) {
    delete document.body.dataset['reason'];
  } else {
    document.body.dataset['reason'] = reason;
  }
}

let toastTimer: ReturnType<typeof setTimeout> | undefined;

export function toast(text: string): void {
  clearTimeout(toastTimer);
  byId('toast').textContent = text;
  toastTimer = setTimeout(() => {
    byId('toast').textContent = '';
  }, 4_000);
}
