// When a session is about to end, and how to say so. No DOM, no clock.

/** One of `live` in `PREFIX/status`. */
export interface LiveSession {
  id: string;
  opened_at: number;
  valid_until: number;
  idle_s: number;
}

export interface Warning {
  kind: 'expires' | 'idle';
  seconds: number;
}

const EXPIRY_WARNING_S = 300;
const IDLE_WARNING_S = 60;
/** Short sessions warn in their last part only. */
const WARNING_SHARE = 0.25;

/**
 * The warning to show at `now` (Unix seconds of the gateway), the more urgent one; `idleFor`
 * is the time in seconds since the last input here.
 */
export function warningAt(session: LiveSession, now: number, idleFor: number): Warning | undefined {
  const expires = Math.max(0, session.valid_until - now);
  const expiryShare = (session.valid_until - session.opened_at) * WARNING_SHARE;
  const idle = Math.max(0, session.idle_s - idleFor);
  const warnings: Warning[] = [];
  if (expires <= Math.min(EXPIRY_WARNING_S, expiryShare)) {
    warnings.push({ kind: 'expires', seconds: Math.ceil(expires) });
  }
  if (session.idle_s > 0 && idle <= Math.min(IDLE_WARNING_S, session.idle_s * WARNING_SHARE)) {
    warnings.push({ kind: 'idle', seconds: Math.ceil(idle) });
  }
  return warnings.sort((a, b) => a.seconds - b.seconds)[0];
}

/** `4:05`, or `1:02:03` from an hour on. */
export function clockText(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  const two = (value: number) => String(value).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** What a screen reader is told: the whole minute or half minute, so that it is not said each second. */
export function spokenText({ kind, seconds }: Warning): string {
  const amount =
    seconds > 90 ? `${Math.round(seconds / 60)} minutes` : seconds > 30 ? 'one minute' : 'less than 30 seconds';
  return kind === 'idle'
    ? `No input for a while. This session closes in ${amount} unless you use it.`
    : `This session ends in ${amount}. Save your work.`;
}

/** The session that belongs to this page: the newest one opened since its attempt began. */
export function ownSession(live: LiveSession[], known: ReadonlySet<string>): LiveSession | undefined {
  const newest = (sessions: LiveSession[]) => [...sessions].sort((a, b) => b.opened_at - a.opened_at)[0];
  return newest(live.filter(({ id }) => !known.has(id))) ?? newest(live);
}
