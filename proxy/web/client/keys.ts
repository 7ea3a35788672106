// Key combinations that browsers or operating systems keep for themselves, as RDP scancodes. No DOM.

const CONTROL = 0x001d;
const ALT = 0x0038;
const SHIFT = 0x002a;
const TAB = 0x000f;
const ESCAPE = 0x0001;
const F4 = 0x003e;
const DELETE = 0xe053;
const META = 0xe05b;
const PRINT = 0xe037;
const L = 0x0026;
const W = 0x0011;

/** Pressed in this order, released in reverse. The keys are `data-keys` of the toolbar's buttons. */
export const COMBINATIONS: Readonly<Record<string, readonly number[]>> = {
  'ctrl-alt-del': [CONTROL, ALT, DELETE],
  meta: [META],
  'alt-tab': [ALT, TAB],
  'alt-f4': [ALT, F4],
  'ctrl-shift-esc': [CONTROL, SHIFT, ESCAPE],
  'ctrl-w': [CONTROL, W],
  'meta-l': [META, L],
  print: [PRINT],
  escape: [ESCAPE],
};

/** `DOMAIN\user` as people type it; `user@domain` is a name of its own and stays whole. */
export function accountOf(user: string, domain: string): { user: string; domain: string } {
  const trimmed = user.trim();
  const at = trimmed.indexOf('\\');
  if (at < 0) {
    return { user: trimmed, domain: domain.trim() };
  }
  return { user: trimmed.slice(at + 1), domain: trimmed.slice(0, at) };
}
