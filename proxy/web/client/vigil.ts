// While a desktop is shown: pings, the session's remaining time, and the warning before it ends.

import { clockText, type LiveSession, ownSession, spokenText, type Warning, warningAt } from './countdown.js';
import { announce, byId, show } from './dom.js';
import type { Gateway, Status } from './gateway.js';
import { type Samples, withSample } from './latency.js';

const PING_MS = 3_000;
const STATUS_MS = 10_000;
const TICK_MS = 500;

const INPUT_EVENTS = ['keydown', 'pointermove', 'pointerdown', 'wheel'] as const;

export class Vigil {
  readonly #gateway: Gateway;
  readonly #onLatency: (samples: Samples) => void;
  readonly #known: ReadonlySet<string>;
  readonly #stop = new AbortController();
  #samples: Samples = [];
  #session: LiveSession | undefined;
  /** Gateway's clock minus ours, in seconds. */
  #offset = 0;
  #lastInput = performance.now();
  #spoken = '';
  #dismissed: Warning['kind'] | undefined;

  /** `before` is the status from just before the attempt: its sessions are not this one. */
  constructor(gateway: Gateway, before: Status | undefined, onLatency: (samples: Samples) => void) {
    this.#gateway = gateway;
    this.#onLatency = onLatency;
    this.#known = new Set(before?.live.map(({ id }) => id));
    const { signal } = this.#stop;
    for (const name of INPUT_EVENTS) {
      byId('stage').addEventListener(name, (event) => this.#onInput(event), { signal, capture: true, passive: true });
    }
    byId('warning-dismiss').addEventListener('click', () => this.#dismiss(), { signal });
    // The first answer also pays for a new connection and the desktop's first picture.
    void gateway.ping().then(() => this.#repeat(PING_MS, () => this.#ping()));
    this.#repeat(STATUS_MS, () => this.#refresh());
    this.#repeat(TICK_MS, () => Promise.resolve(this.#tick()));
  }

  end(): void {
    this.#stop.abort();
    show(byId('warning'), false);
    delete document.body.dataset['session'];
  }

  /** Waits for each run before the pause to the next, so that slow answers never pile up. */
  #repeat(everyMs: number, run: () => Promise<void>): void {
    const turn = async () => {
      if (this.#stop.signal.aborted) {
        return;
      }
      await run();
      if (!this.#stop.signal.aborted) {
        setTimeout(() => void turn(), everyMs);
      }
    };
    void turn();
  }

  async #ping(): Promise<void> {
    const sample = await this.#gateway.ping();
    if (!this.#stop.signal.aborted) {
      this.#samples = withSample(this.#samples, sample);
      this.#onLatency(this.#samples);
    }
  }

  async #refresh(): Promise<void> {
    const status = await this.#gateway.status();
    if (status === undefined || this.#stop.signal.aborted) {
      return;
    }
    this.#offset = status.now - Date.now() / 1000;
    const own = status.live.find(({ id }) => id === this.#session?.id);
    this.#session = own ?? this.#session ?? ownSession(status.live, this.#known);
    if (this.#session !== undefined) {
      document.body.dataset['session'] = this.#session.id;
    }
  }

  /** Only what reaches the picture reaches the gateway; the margin around it does not count. */
  #onInput(event: Event): void {
    if (event.composedPath()[0] instanceof HTMLCanvasElement) {
      this.#lastInput = performance.now();
    }
  }

  #tick(): void {
    if (this.#session === undefined || this.#stop.signal.aborted) {
      return;
    }
    const now = Date.now() / 1000 + this.#offset;
    const idleFor = (performance.now() - this.#lastInput) / 1000;
    const warning = warningAt(this.#session, now, idleFor);
    if (warning?.kind !== this.#dismissed) {
      this.#dismissed = undefined;
    }
    // A hidden warning comes back for the last minute.
    const visible = warning !== undefined && (this.#dismissed === undefined || warning.seconds <= 60);
    show(byId('warning'), visible);
    if (!visible) {
      this.#spoken = '';
      return;
    }
    byId('warning').dataset['kind'] = warning.kind;
    byId('warning-text').textContent =
      warning.kind === 'idle'
        ? 'Are you still there? Move the mouse over the desktop or press a key. Closing in'
        : 'This session ends soon. Save your work. Time left:';
    // Hiding the question would not be an answer that the gateway hears.
    show(byId('warning-dismiss'), warning.kind === 'expires');
    byId('warning-clock').textContent = clockText(warning.seconds);
    const spoken = spokenText(warning);
    if (spoken !== this.#spoken && (this.#spoken === '' || warning.seconds <= 60)) {
      this.#spoken = spoken;
      announce(spoken);
    }
  }

  #dismiss(): void {
    this.#dismissed = 'expires';
    show(byId('warning'), false);
  }
}
