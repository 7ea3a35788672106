// What every page has: the theme switch, password fields that can be shown, caps-lock hints.

import { nextTheme, remember, rememberedTheme, type Theme } from './preferences.js';

const THEME_WORDS: Record<Theme, string> = {
  system: 'Colours: as the system',
  light: 'Colours: light',
  dark: 'Colours: dark',
};

export function furnish(): void {
  furnishTheme();
  document.querySelectorAll<HTMLButtonElement>('[data-reveal]').forEach(furnishReveal);
  document.querySelectorAll<HTMLElement>('[data-caps-lock]').forEach(furnishCapsLock);
}

function furnishTheme(): void {
  const button = document.getElementById('theme');
  const label = document.getElementById('theme-label');
  if (button === null || label === null) {
    return;
  }
  let theme = rememberedTheme();
  const apply = () => {
    if (theme === 'system') {
      delete document.documentElement.dataset['theme'];
    } else {
      document.documentElement.dataset['theme'] = theme;
    }
    label.textContent = THEME_WORDS[theme];
    button.title = THEME_WORDS[theme];
  };
  button.addEventListener('click', () => {
    theme = nextTheme(theme);
    remember('theme', theme);
    apply();
  });
  apply();
  button.hidden = false;
}

function furnishReveal(button: HTMLButtonElement): void {
  const input = document.getElementById(button.dataset['reveal'] ?? '');
  if (!(input instanceof HTMLInputElement)) {
    return;
  }
  const reveal = (revealed: boolean) => {
    input.type = revealed ? 'text' : 'password';
    button.textContent = revealed ? 'Hide' : 'Show';
    button.setAttribute('aria-pressed', String(revealed));
  };
  button.setAttribute('aria-label', 'Show password');
  button.addEventListener('click', () => reveal(input.type === 'password'));
  // A browser offers to keep only what is typed as a password when the form goes out.
  input.form?.addEventListener('submit', () => reveal(false));
  button.hidden = false;
}

function furnishCapsLock(hint: HTMLElement): void {
  const input = document.getElementById(hint.dataset['capsLock'] ?? '');
  input?.addEventListener('keyup', (event) => {
    const on = event instanceof KeyboardEvent && event.getModifierState('CapsLock');
    hint.textContent = on ? 'Caps lock is on.' : '';
  });
  input?.addEventListener('blur', () => {
    hint.textContent = '';
  });
}
