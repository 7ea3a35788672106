// What a person does: sign in, pick a desktop, connect, type, look at the end.

import { expect, PATIENCE_MS, task, until } from './stage.mjs';

/** Opens the gateway and signs in through the form. */
export async function signIn(page, { user = task.user, password = task.password, path = '/' } = {}) {
  await page.goto(new URL(path, task.url).href, { waitUntil: 'load' });
  await page.fill('#user', user);
  await page.fill('#password', password);
  await Promise.all([page.waitForLoadState('load'), page.click('#login button[type=submit]')]);
}

/** Clicks the tile of an application in the launcher. */
export async function pick(page, application) {
  const tile = page.locator(`#tiles a[data-name="${application}"]`);
  await tile.waitFor({ timeout: PATIENCE_MS });
  await tile.click();
  await page.waitForSelector('body[data-state="form"]', { timeout: PATIENCE_MS });
}

/** Fills in the machine's account and connects; does not wait for the desktop. */
export async function connect(page) {
  await page.waitForSelector('body[data-ready="true"]', { timeout: PATIENCE_MS });
  await page.fill('#machine-user', task.machineUser);
  await page.fill('#machine-password', task.machinePassword);
  await page.click('#connect');
}

/** The page's state, reason and session. */
export function state(page) {
  return page.evaluate(() => ({ ...document.body.dataset }));
}

/** Waits for one of `states`; what is left on the way is an error at once. */
export async function reach(page, states, { past = ['connecting', 'reconnecting', 'connected'] } = {}) {
  return until(`state ${states.join(' or ')}`, async () => {
    const now = await state(page);
    if (states.includes(now.state)) {
      return now;
    }
    expect(past.includes(now.state), `the page is ${now.state} (${now.reason}), not ${states.join(' or ')}`);
    return undefined;
  });
}

/** From the launcher to a desktop with a picture. */
export async function openDesktop(page, application) {
  await pick(page, application);
  await connect(page);
  await reach(page, ['connected'], { past: ['form', 'connecting'] });
}

/** Where the words of a failure are: in the form, or on the page of the end. */
export async function words(page) {
  const { state: now } = await state(page);
  const selectors = now === 'form' ? ['#form-problem'] : ['#ended-title', '#ended-text', '#ended-advice'];
  const texts = await Promise.all(selectors.map((selector) => page.locator(selector).innerText()));
  return texts.join(' ').replace(/\s+/g, ' ').trim();
}

/** Keys of a US keyboard that type another character with Shift. */
const SHIFTED = {
  '~': 'Backquote', '!': 'Digit1', '@': 'Digit2', '#': 'Digit3', '$': 'Digit4', '%': 'Digit5', '^': 'Digit6',
  '&': 'Digit7', '*': 'Digit8', '(': 'Digit9', ')': 'Digit0', '_': 'Minus', '+': 'Equal', '{': 'BracketLeft',
  '}': 'BracketRight', '|': 'Backslash', ':': 'Semicolon', '"': 'Quote', '<': 'Comma', '>': 'Period', '?': 'Slash',
};

/** Types as on a keyboard, key by key, with Shift where it takes it: the desktop sees keys, not text. */
export async function type(page, text) {
  for (const character of text) {
    const upper = /^[A-Z]$/.test(character);
    const key = SHIFTED[character] ?? (upper ? `Key${character}` : undefined);
    if (key === undefined) {
      await page.keyboard.press(character === '\n' ? 'Enter' : character, { delay: 15 });
    } else {
      await page.keyboard.down('Shift');
      await page.keyboard.press(key, { delay: 15 });
      await page.keyboard.up('Shift');
    }
  }
}
