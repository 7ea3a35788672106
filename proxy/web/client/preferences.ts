// What this browser remembers: looks and habits, never an account or a password.

export type Theme = 'system' | 'light' | 'dark';

const THEMES: readonly Theme[] = ['system', 'light', 'dark'];

export function rememberedTheme(): Theme {
  const stored = recall('theme');
  return THEMES.find((theme) => theme === stored) ?? 'system';
}

export function nextTheme(theme: Theme): Theme {
  return THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? 'system';
}

/** Undefined when nothing is stored or the browser forbids storage. */
export function recall(key: string): string | undefined {
  try {
    return localStorage.getItem(`postern.${key}`) ?? undefined;
  } catch {
    return undefined;
  }
}

export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(`postern.${key}`, value);
  } catch {
    // A browser that forbids storage forgets; nothing depends on it.
  }
}
