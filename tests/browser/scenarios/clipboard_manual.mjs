// A browser that shares its clipboard only on a click: text goes there and back with the buttons.

import { click, enter, inked } from '../desktops.mjs';
import { openDesktop, signIn, state, type } from '../person.mjs';
import { read, seen } from '../picture.mjs';
import { expect, keep, scenario, task, until } from '../stage.mjs';

/**
 * What Firefox and Safari do: there is no permission to ask for, and reading takes a click and an
 * answer. Scripts may still read and write text.
 */
function withoutPermissions() {
  const query = navigator.permissions.query.bind(navigator.permissions);
  navigator.permissions.query = (what) =>
    what.name.startsWith('clipboard') ? Promise.reject(new TypeError('unknown')) : query(what);
  navigator.clipboard.read = () => Promise.reject(new DOMException('no click', 'NotAllowedError'));
}

/** Opens the bar's clipboard panel with the keyboard and presses a button there; the page says `words`. */
async function press(page, button, words) {
  await page.keyboard.press('Control+Alt+Home');
  await page.waitForSelector('#bar[data-open="true"]', { timeout: 5_000 });
  await page.click('#clipboard');
  await keep(page, `${task.name}-${button}`);
  await page.click(`#${button}`);
  await page.waitForFunction((wanted) => {
    const said = document.querySelector('#toast').textContent;
    if (said.includes('did not work')) {
      throw new Error(said);
    }
    return said.includes(wanted);
  }, words, { timeout: 10_000 });
  expect(await page.locator('#bar').getAttribute('data-open') === 'false', 'the bar is in the way');
}

await scenario(
  async (page, context) => {
    await context.addInitScript(withoutPermissions);
    await signIn(page);
    await openDesktop(page, task.application);
    await enter(page, task.kind);
    await until('the manual way to be told', async () => (await state(page)).clipboard === 'manual');

    await click(page, 0.5, 0.9);
    const before = inked(await read(page));
    await page.evaluate((text) => navigator.clipboard.writeText(text), task.text);
    await press(page, 'clipboard-send', 'on the computer');
    // Where the page says that it worked: the click goes to the desktop all the same.
    await click(page, 0.5, 0.9);
    await page.keyboard.press('Control+v', { delay: 30 });
    await seen(page, 'the pasted text in the notes', (now) => inked(now) - before > 500);

    await page.evaluate(() => navigator.clipboard.writeText('something else'));
    await type(page, ' 42');
    await page.keyboard.press('Control+c', { delay: 30 });
    await until('the page to tell of the new text', async () => (await state(page)).clipboard === 'waiting');
    expect(await page.evaluate(() => navigator.clipboard.readText()) === 'something else', 'it came without a click');
    await press(page, 'clipboard-take', 'now yours');
    await until('the text of the desktop', async () => {
      const text = await page.evaluate(() => navigator.clipboard.readText());
      return text.replaceAll('\r\n', '\n') === `${task.text} 42`;
    }, 10_000);
    await until('the page to be done with it', async () => (await state(page)).clipboard === 'manual');
  },
  { permissions: ['clipboard-read', 'clipboard-write'] },
);
