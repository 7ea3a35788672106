// The bar over the desktop: opening, hiding, its panels and switches.

import { byId, show } from './dom.js';
import { COMBINATIONS } from './keys.js';
import { qualityOf, type Samples, sparkline } from './latency.js';
import { recall, remember } from './preferences.js';
import type { ClipboardState, Scale } from './remote.js';

export interface ToolbarActions {
  press(scancodes: readonly number[]): void;
  releaseKeys(): void;
  setScale(scale: Scale): void;
  setResize(follows: boolean): void;
  setUnicode(unicode: boolean): void;
  sendClipboard(): void;
  takeClipboard(): void;
  disconnect(): void;
  focusDesktop(): void;
}

const HIDE_AFTER_MS = 3_000;
const HOVER_GRACE_MS = 700;
const PANELS = ['view', 'keys', 'clipboard'] as const;

const CLIPBOARD_WORDS: Record<ClipboardState | 'waiting', string> = {
  automatic:
    'Shared: what you copy on one side can be pasted on the other. If the browser asks and you refuse, send yours with the button.',
  manual: 'Your browser does not share it by itself. Use these buttons after copying.',
  waiting: 'The computer has something new on its clipboard. Take it with the button.',
  off: 'Not available: the browser allows it only on a secure page.',
};

export class Toolbar {
  readonly #actions: ToolbarActions;
  readonly #bar = byId('bar');
  readonly #handle = byId('bar-handle');
  readonly #row = byId('toolbar');
  #hoveredAt = -HOVER_GRACE_MS;
  #hideTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(actions: ToolbarActions) {
    this.#actions = actions;
    this.#wireOpening();
    this.#wirePanels();
    this.#wireView();
    this.#wireKeys();
    byId('clipboard-send').addEventListener('click', () => actions.sendClipboard());
    byId('clipboard-take').addEventListener('click', () => actions.takeClipboard());
    byId('disconnect').addEventListener('click', () => actions.disconnect());
  }

  get scale(): Scale {
    return this.#checked('scale', 'real') ? 'real' : 'fit';
  }

  get resizes(): boolean {
    return byId<HTMLInputElement>('resize').checked;
  }

  get unicode(): boolean {
    return byId<HTMLInputElement>('unicode').checked;
  }

  /** Shown with a desktop; it opens for a moment, so that one sees where it is. */
  appear(): void {
    show(this.#bar, true);
    this.#open(true);
    this.#hideSoon();
  }

  vanish(): void {
    this.#open(false);
    show(this.#bar, false);
    if (document.fullscreenElement !== null) {
      void document.exitFullscreen();
    }
  }

  close(): void {
    this.#open(false);
  }

  showLatency(samples: Samples): void {
    const last = samples[samples.length - 1];
    const quality = qualityOf(samples);
    byId('latency-text').textContent = last === undefined ? 'no answer' : `${Math.round(last)} ms`;
    byId('quality').dataset['quality'] = quality;
    byId('connection').title = `Connection to the gateway: ${quality}`;
    byId<SVGPolylineElement>('spark').setAttribute('points', sparkline(samples, 60, 18));
    document.body.dataset['quality'] = quality;
    document.body.dataset['latencyMs'] = last === undefined ? '' : String(Math.round(last));
  }

  showClipboard(state: ClipboardState | 'waiting'): void {
    byId('clipboard-dot').dataset['clipboard'] = state;
    byId('clipboard-text').textContent = CLIPBOARD_WORDS[state];
    document.body.dataset['clipboard'] = state;
    byId<HTMLButtonElement>('clipboard-send').disabled = state === 'off';
    // In the automatic way the computer's text has been put into the browser already.
    byId<HTMLButtonElement>('clipboard-take').disabled = state === 'off' || state === 'automatic';
  }

  #wireOpening(): void {
    this.#handle.addEventListener('click', () => {
      // The pointer has just opened it on its way to this click.
      if (performance.now() - this.#hoveredAt < HOVER_GRACE_MS) {
        return;
      }
      const open = this.#bar.dataset['open'] !== 'true';
      this.#open(open);
      if (!open) {
        this.#actions.focusDesktop();
      }
    });
    this.#bar.addEventListener('pointerenter', (event) => {
      clearTimeout(this.#hideTimer);
      if (event.pointerType === 'mouse' && this.#bar.dataset['open'] !== 'true') {
        this.#hoveredAt = performance.now();
        this.#open(true);
      }
    });
    this.#bar.addEventListener('pointerleave', () => this.#hideSoon());
    this.#bar.addEventListener('focusout', () => this.#hideSoon());
    this.#bar.addEventListener('keydown', (event) => this.#onKey(event));
    // In the capture phase and before the component's own listener: these keys are ours.
    window.addEventListener(
      'keydown',
      (event) => {
        if (event.ctrlKey && event.altKey && event.code === 'Home' && !this.#bar.hidden) {
          event.preventDefault();
          event.stopImmediatePropagation();
          this.#actions.releaseKeys();
          this.#open(true);
          this.#buttons()[0]?.focus();
        }
      },
      { capture: true },
    );
  }

  /** [ARIA Authoring Practices, toolbar] Arrow keys move between controls, Escape goes back. */
  #onKey(event: KeyboardEvent): void {
    if (event.key === 'Escape') {
      event.preventDefault();
      const expanded = this.#row.querySelector<HTMLElement>('[aria-expanded="true"]');
      this.#openPanel(undefined);
      if (expanded === null) {
        this.#open(false);
        this.#actions.focusDesktop();
      } else {
        expanded.focus();
      }
      return;
    }
    const buttons = this.#buttons();
    const index = buttons.findIndex((button) => button === document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (index >= 0 && step !== undefined) {
      event.preventDefault();
      buttons[(index + step + buttons.length) % buttons.length]?.focus();
    }
  }

  #buttons(): HTMLElement[] {
    return [...this.#row.querySelectorAll<HTMLElement>('button:not([hidden]), a')];
  }

  #wirePanels(): void {
    for (const name of PANELS) {
      byId(name).addEventListener('click', () => {
        this.#openPanel(byId(name).getAttribute('aria-expanded') === 'true' ? undefined : name);
      });
    }
    byId('stage').addEventListener('pointerdown', () => this.#open(false), { capture: true });
  }

  #openPanel(open: (typeof PANELS)[number] | undefined): void {
    for (const name of PANELS) {
      byId(name).setAttribute('aria-expanded', String(name === open));
      show(byId(`${name}-panel`), name === open);
    }
  }

  #wireView(): void {
    const fullscreen = byId<HTMLButtonElement>('fullscreen');
    show(fullscreen, document.fullscreenEnabled);
    fullscreen.addEventListener('click', () => {
      void toggleFullscreen().then(() => this.#actions.focusDesktop());
    });
    document.addEventListener('fullscreenchange', () => {
      fullscreen.setAttribute('aria-pressed', String(document.fullscreenElement !== null));
    });

    const scale = recall('scale') === 'real' ? 'real' : 'fit';
    document.querySelectorAll<HTMLInputElement>('input[name="scale"]').forEach((input) => {
      input.checked = input.value === scale;
      input.addEventListener('change', () => {
        remember('scale', this.scale);
        this.#actions.setScale(this.scale);
      });
    });
    this.#wireSwitch('resize', true, (on) => this.#actions.setResize(on));
    this.#wireSwitch('unicode', false, (on) => this.#actions.setUnicode(on));
  }

  #wireSwitch(id: string, preset: boolean, act: (on: boolean) => void): void {
    const input = byId<HTMLInputElement>(id);
    input.checked = (recall(id) ?? String(preset)) === 'true';
    input.addEventListener('change', () => {
      remember(id, String(input.checked));
      act(input.checked);
    });
  }

  #checked(name: string, value: string): boolean {
    return document.querySelector<HTMLInputElement>(`input[name="${name}"][value="${value}"]`)?.checked ?? false;
  }

  #wireKeys(): void {
    byId('keys-panel')
      .querySelectorAll<HTMLButtonElement>('[data-keys]')
      .forEach((button) => {
        const combination = COMBINATIONS[button.dataset['keys'] ?? ''];
        button.addEventListener('click', () => {
          this.#actions.press(combination ?? []);
          this.#actions.focusDesktop();
        });
      });
  }

  #open(open: boolean): void {
    this.#bar.dataset['open'] = String(open);
    this.#handle.setAttribute('aria-expanded', String(open));
    if (!open) {
      this.#openPanel(undefined);
    }
  }

  #hideSoon(): void {
    clearTimeout(this.#hideTimer);
    this.#hideTimer = setTimeout(() => {
      const inUse = this.#bar.matches(':hover, :focus-within') || this.#row.querySelector('[aria-expanded="true"]');
      if (!inUse) {
        this.#open(false);
      }
    }, HIDE_AFTER_MS);
  }
}

/** In full screen, where the browser can, the keys of the operating system go to the computer too. */
async function toggleFullscreen(): Promise<void> {
  if (document.fullscreenElement !== null) {
    await document.exitFullscreen();
    return;
  }
  try {
    await document.documentElement.requestFullscreen({ navigationUI: 'hide' });
    await (navigator as { keyboard?: { lock?: () => Promise<void> } }).keyboard?.lock?.();
  } catch {
    // Refused by the browser: the desktop stays in its window.
  }
}
