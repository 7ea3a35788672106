// Sets the remembered colours before the first paint; without a choice the style sheet follows the system.

import { rememberedTheme } from './preferences.js';

const theme = rememberedTheme();
if (theme !== 'system') {
  document.documentElement.dataset['theme'] = theme;
}
