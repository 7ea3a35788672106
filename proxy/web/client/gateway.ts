// What the page asks the gateway over HTTP: renew the access, the session's state, a ping.

import type { LiveSession } from './countdown.js';
import type { Ended } from './ends.js';

const TIMEOUT_MS = 8_000;

export interface Status {
  now: number;
  live: LiveSession[];
  ended: Ended | undefined;
}

/** Undefined when access was renewed, else the reason why not. */
export type Renewal = undefined | 'signed_out' | 'not_allowed' | 'gateway_unreachable';

export class Gateway {
  readonly #prefix: string;

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** Where the desktop page itself lives; opening it signs in again when needed. */
  get page(): string {
    return `${this.#prefix}/`;
  }

  /** The WebSocket's address. */
  get socket(): string {
    return `wss://${location.host}${this.#prefix}/rdp`;
  }

  async renew(): Promise<Renewal> {
    const response = await this.#ask('POST', 'renew');
    if (response?.ok) {
      return undefined;
    }
    switch (response?.status) {
      case 401:
        return 'signed_out';
      case 403:
        return 'not_allowed';
      default:
        return 'gateway_unreachable';
    }
  }

  async status(): Promise<Status | undefined> {
    const response = await this.#ask('GET', 'status');
    if (!response?.ok) {
      return undefined;
    }
    try {
      return parseStatus(await response.json());
    } catch {
      return undefined;
    }
  }

  /** Milliseconds there and back; undefined without an answer. Any answer shows that the way is open. */
  async ping(): Promise<number | undefined> {
    const start = performance.now();
    const response = await this.#ask('GET', 'ping');
    return response === undefined ? undefined : performance.now() - start;
  }

  async #ask(method: string, path: string): Promise<Response | undefined> {
    try {
      return await fetch(`${this.#prefix}/${path}`, {
        method,
        headers: { 'X-Requested-With': 'XMLHttpRequest' },
        cache: 'no-store',
        credentials: 'same-origin',
        // The gateway answers scripts with a status, never with a login page.
        redirect: 'manual',
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch {
      return undefined;
    }
  }
}

/** Takes what has the right type and leaves out the rest. */
export function parseStatus(value: unknown): Status | undefined {
  const body = fields(value);
  if (body === undefined || typeof body['now'] !== 'number') {
    return undefined;
  }
  const live = Array.isArray(body['live']) ? body['live'].map(parseLive) : [];
  return {
    now: body['now'],
    live: live.filter((session) => session !== undefined),
    ended: parseEnded(body['ended']),
  };
}

function parseLive(value: unknown): LiveSession | undefined {
  const session = fields(value) ?? {};
  const { id, opened_at, valid_until, idle_s } = session as Record<keyof LiveSession, unknown>;
  return typeof id === 'string' &&
    typeof opened_at === 'number' &&
    typeof valid_until === 'number' &&
    typeof idle_s === 'number'
    ? { id, opened_at, valid_until, idle_s }
    : undefined;
}

function parseEnded(value: unknown): Ended | undefined {
  const ended = fields(value) ?? {};
  const { reason, sentence, at } = ended as Record<keyof Ended, unknown>;
  return typeof reason === 'string' && typeof at === 'number'
    ? { reason, sentence: typeof sentence === 'string' ? sentence : '', at }
    : undefined;
}

function fields(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
}

/**
 * The end that `after` tells of, if `before` did not know it: compared on one clock, the gateway's.
 * Without a `before` an old end cannot be told from a new one, so there is none.
 */
export function freshEnd(before: Status | undefined, after: Status | undefined): Ended | undefined {
  const known = before?.ended;
  const told = after?.ended;
  if (before === undefined || (known?.at === told?.at && known?.reason === told?.reason)) {
    return undefined;
  }
  return told;
}
