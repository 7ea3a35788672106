// When and how often the page connects again by itself. No DOM, no clock.

const DELAYS_MS = [1_000, 2_000, 4_000, 8_000, 16_000] as const;

/** After this many attempts in a row the page gives up: about two minutes. */
export const ATTEMPTS_MAX = 10;

/** A desktop that lasted this long was a success, and counting starts anew. */
export const STABLE_MS = 10_000;

const JITTER = 0.25;

/** Ends that time may heal. All others need a person, so they are never retried. */
const HEALING_AFTER_DESKTOP = new Set(['network_lost', 'draining', 'target_lost']);
const HEALING_WHILE_RETRYING = new Set([...HEALING_AFTER_DESKTOP, 'gateway_unreachable', 'target_unreachable']);

/** Whether to go on after `reason`; `attempts` made since the last stable desktop. */
export function reconnects(reason: string, connected: boolean, attempts: number): boolean {
  if (attempts >= ATTEMPTS_MAX) {
    return false;
  }
  if (connected) {
    return HEALING_AFTER_DESKTOP.has(reason);
  }
  // A first attempt that fails is the person's to repeat.
  return attempts > 0 && HEALING_WHILE_RETRYING.has(reason);
}

/** Time to wait before attempt `attempt` (from 1); `random` in [0, 1) spreads many pages apart. */
export function delayMs(attempt: number, random: number): number {
  const base = DELAYS_MS[Math.min(attempt, DELAYS_MS.length) - 1] ?? DELAYS_MS[0];
  return Math.round(base * (1 - JITTER + 2 * JITTER * random));
}
