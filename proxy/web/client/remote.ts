// The RDP component: loading it, connecting with it, and what the toolbar asks of it.

import type { UserInteraction } from '@devolutions/iron-remote-desktop';

import type { Failure } from './ends.js';

export interface Credentials {
  user: string;
  password: string;
  domain: string;
}

export interface Size {
  width: number;
  height: number;
}

/** A desktop on the screen. */
export interface Running {
  /** Resolves at its end: undefined, or what went wrong. */
  ended: Promise<Failure | undefined>;
}

export type Scale = 'fit' | 'real';

/** `ScreenScale` of the component, which exports only its type. */
const SCREEN_SCALE: Record<Scale, number> = { fit: 1, real: 3 };

/**
 * Before this time after `ready` the component has not yet registered its clipboard callbacks, and
 * a session that starts without them never gets a clipboard. There is no event for it.
 */
const CLIPBOARD_SETTLED_MS = 350;
const REMOVAL_MS = 250;

/** Bounds and evenness that [MS-RDPEDISP 2.2.2.2.1] demands of a monitor. */
const SIDE_MIN = 200;
const SIDE_MAX = 8192;

interface RemoteElement extends HTMLElement {
  module: unknown;
  scale: string;
  flexcenter: string;
}

/** What is used of the running session beyond the component's own functions. */
interface Session {
  applyInputs(transaction: unknown): void;
  releaseAllInputs(): void;
}

type Modules = Awaited<ReturnType<typeof loadModules>>;

async function loadModules() {
  const [component, rdp] = await Promise.all([
    import('@devolutions/iron-remote-desktop'),
    import('@devolutions/iron-remote-desktop-rdp'),
  ]);
  await rdp.init('WARN');
  return { component, rdp };
}

export class RemoteDesktop {
  readonly #stage: HTMLElement;
  readonly #onRemoteClipboard: () => void;
  #modules: Promise<Modules> | undefined;
  #prepared: Promise<UserInteraction> | undefined;
  #element: RemoteElement | undefined;
  #interaction: UserInteraction | undefined;
  #session: Session | undefined;
  #backend: Modules['rdp']['Backend'] | undefined;
  #scale: Scale = 'fit';

  constructor(stage: HTMLElement, onRemoteClipboard: () => void) {
    this.#stage = stage;
    this.#onRemoteClipboard = onRemoteClipboard;
  }

  /**
   * Loads and mounts the component; every session gets a new one. Should run without a click just
   * before it, because the component may try the clipboard and some browsers then ask the person.
   */
  prepare(): Promise<UserInteraction> {
    this.#modules ??= loadModules();
    this.#prepared ??= this.#modules.then((modules) => this.#mount(modules));
    return this.#prepared;
  }

  async #mount({ rdp }: Modules): Promise<UserInteraction> {
    const element = document.createElement('iron-remote-desktop') as RemoteElement;
    // The listener stands before the element is mounted: `ready` fires once, early.
    const ready = new Promise<UserInteraction>((resolve) => {
      element.addEventListener('ready', (event) => {
        resolve((event as CustomEvent<{ irgUserInteraction: UserInteraction }>).detail.irgUserInteraction);
      });
    });
    const keep = (session: Session) => {
      this.#session = session;
    };
    // The component offers four key combinations; the session behind it takes any.
    class SessionBuilder extends rdp.Backend.SessionBuilder {
      override async connect() {
        const session = await super.connect();
        keep(session as unknown as Session);
        return session;
      }
    }
    element.module = { ...rdp.Backend, SessionBuilder };
    element.scale = this.#scale;
    element.flexcenter = 'true';
    this.#backend = rdp.Backend;
    this.#element = element;
    this.#stage.replaceChildren(element);

    const interaction = await ready;
    interaction.onClipboardRemoteUpdateCallback(this.#onRemoteClipboard);
    await Promise.all([clipboardPermission(), pause(CLIPBOARD_SETTLED_MS)]);
    hideCaptureOutline(element);
    this.#interaction = interaction;
    return interaction;
  }

  /** Resolves when the desktop is there; throws what the component throws. */
  async connect(
    credentials: Credentials,
    address: string,
    application: string,
    size: Size,
  ): Promise<Running> {
    const interaction = await this.prepare();
    const { component, rdp } = await (this.#modules as Promise<Modules>);
    // `configBuilder().build()` insists on a token. Ours travels as a cookie that scripts cannot
    // read, so the configuration is made without the builder and the token left empty.
    const config = new component.Config(
      { username: credentials.user, password: credentials.password },
      { address, authToken: '' },
      {
        // The gateway dials what its own configuration says and nothing else. A destination has to
        // be sent, and the name of the application is the one that the gateway takes: the page
        // never learns the computer's address.
        destination: application,
        serverDomain: credentials.domain,
        extensions: [rdp.displayControl(true)],
        desktopSize: size,
      },
    );
    const { run } = await interaction.connect(config);
    interaction.setVisibility(true);
    const ended = run().then(
      () => undefined,
      (error: unknown) => failureOf(error),
    );
    return { ended };
  }

  /** Takes the component away with everything that it holds, the password included. */
  dispose(): void {
    const element = this.#element;
    // It lays itself out once more a moment after a start, and must still be there then.
    setTimeout(() => element?.remove(), REMOVAL_MS);
    this.#element = undefined;
    this.#interaction = undefined;
    this.#session = undefined;
    this.#prepared = undefined;
  }

  shutdown(): void {
    quietly(() => this.#interaction?.shutdown());
  }

  focus(): void {
    this.#element?.focus({ preventScroll: true });
  }

  setScale(scale: Scale): void {
    this.#scale = scale;
    quietly(() => this.#interaction?.setScale(SCREEN_SCALE[scale]));
  }

  resize({ width, height }: Size): void {
    quietly(() => this.#interaction?.resize(width, height));
    // A computer that does not take the new size leaves the picture stretched: lay it out again.
    setTimeout(() => this.setScale(this.#scale), 700);
  }

  setUnicode(unicode: boolean): void {
    quietly(() => this.#interaction?.setKeyboardUnicodeMode(unicode));
  }

  press(scancodes: readonly number[]): void {
    const backend = this.#backend;
    const session = this.#session;
    if (backend === undefined || session === undefined) {
      return;
    }
    quietly(() => {
      const transaction = new backend.InputTransaction();
      scancodes.forEach((code) => transaction.addEvent(backend.DeviceEvent.keyPressed(code)));
      [...scancodes].reverse().forEach((code) => transaction.addEvent(backend.DeviceEvent.keyReleased(code)));
      session.applyInputs(transaction);
    });
  }

  releaseKeys(): void {
    quietly(() => this.#session?.releaseAllInputs());
  }

  async sendClipboard(): Promise<void> {
    await this.#interaction?.sendClipboardData();
  }

  async takeClipboard(): Promise<void> {
    await this.#interaction?.saveRemoteClipboardData();
  }
}

/** The largest desktop that fits the window and that RDP allows. */
export function windowSize(): Size {
  const side = (value: number) => Math.min(SIDE_MAX, Math.max(SIDE_MIN, Math.floor(value / 2) * 2));
  return { width: side(window.innerWidth), height: side(window.innerHeight) };
}

export type ClipboardState = 'automatic' | 'manual' | 'off';

/** How text can be exchanged with the computer in this browser. */
export async function clipboardState(): Promise<ClipboardState> {
  if (!window.isSecureContext || navigator.clipboard === undefined) {
    return 'off';
  }
  const permission = await clipboardPermission();
  return permission === 'granted' || permission === 'prompt' ? 'automatic' : 'manual';
}

/** Calls `changed` whenever the person gives or takes the permission to read the clipboard. */
export function onClipboardPermission(changed: () => void): void {
  void queryClipboard().then((status) => status?.addEventListener('change', changed));
}

async function clipboardPermission(): Promise<PermissionState | undefined> {
  return (await queryClipboard())?.state;
}

/** Undefined in browsers that know no such permission. */
async function queryClipboard(): Promise<PermissionStatus | undefined> {
  try {
    return await navigator.permissions.query({ name: 'clipboard-read' as PermissionName });
  } catch {
    return undefined;
  }
}

/** What the component threw, in our terms; its text is only ever searched, never shown or logged. */
export function failureOf(error: unknown): Failure {
  const thrown = (typeof error === 'object' && error !== null ? error : {}) as {
    kind?: () => number;
    backtrace?: () => string;
    rdcleanpathDetails?: () => { httpStatusCode?: number; wsaErrorCode?: number; tlsAlertCode?: number } | undefined;
  };
  const details = thrown.rdcleanpathDetails?.();
  return {
    kind: thrown.kind?.() ?? 0,
    text: thrown.backtrace?.() ?? '',
    ...(details?.httpStatusCode === undefined ? {} : { httpStatus: details.httpStatusCode }),
    ...(details?.wsaErrorCode === undefined ? {} : { socketError: details.wsaErrorCode }),
    ...(details?.tlsAlertCode === undefined ? {} : { tlsAlert: details.tlsAlertCode }),
  };
}

/** The component draws a blue line around the desktop all the time. */
function hideCaptureOutline(element: HTMLElement): void {
  const style = document.createElement('style');
  style.textContent = '.capturing-inputs { outline: none !important } canvas { outline: none }';
  element.shadowRoot?.append(style);
}

/** A session that is ending throws at late calls; its end is told by `run` alone. */
function quietly(call: () => void): void {
  try {
    call();
  } catch {
    // Told by `run`.
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
