// Text goes from the browser's clipboard to the desktop, and from the desktop's back.

import { click, enter, inked } from '../desktops.mjs';
import { openDesktop, signIn, state, type } from '../person.mjs';
import { read, seen } from '../picture.mjs';
import { expect, keep, pause, scenario, task, until } from '../stage.mjs';

/** The page looks at the browser's clipboard ten times a second and tells the computer. */
const TOLD_MS = 1_500;

function own(page) {
  return page.evaluate(() => navigator.clipboard.readText());
}

function setOwn(page, text) {
  return page.evaluate((wanted) => navigator.clipboard.writeText(wanted), text);
}

/** Copies everything on the desktop and waits until the browser has it. */
async function copyAll(page, expected) {
  await page.keyboard.press('Control+a', { delay: 30 });
  await page.keyboard.press('Control+c', { delay: 30 });
  let last;
  try {
    await until('the text of the desktop', async () => {
      last = (await own(page)).replaceAll('\r\n', '\n');
      return last === expected;
    }, 10_000);
  } catch {
    throw new Error(`the browser has ${JSON.stringify(last)}, not ${JSON.stringify(expected)}`);
  }
}

await scenario(
  async (page) => {
    await signIn(page);
    await openDesktop(page, task.application);
    await enter(page, task.kind);
    const { clipboard } = await state(page);
    expect(clipboard === 'automatic', `the clipboard is ${clipboard}`);

    await click(page, 0.5, 0.9);
    const before = inked(await read(page));
    await setOwn(page, task.text);
    await pause(TOLD_MS);
    await page.keyboard.press('Control+v', { delay: 30 });
    await seen(page, 'the pasted text in the notes', (now) => inked(now) - before > 500);
    await keep(page, `${task.name}-pasted`);

    // Something else in between: what comes back comes from the desktop.
    await setOwn(page, 'something else');
    await pause(TOLD_MS);
    await type(page, ' 42');
    await copyAll(page, `${task.text} 42`);
    await keep(page, `${task.name}-copied`);

    // What the browser got from the desktop is pasted there again, in place of the selection.
    await pause(TOLD_MS);
    await page.keyboard.press('Control+v', { delay: 30 });
    await pause(TOLD_MS);
    await setOwn(page, 'once more');
    await pause(TOLD_MS);
    await copyAll(page, `${task.text} 42`);
    // A new size makes the server start over with the picture, not with the clipboard.
    await page.setViewportSize({ width: 1000, height: 700 });
    await seen(page, 'a smaller desktop', (now) => now.width <= 1010);
    await setOwn(page, 'nach der neuen Größe');
    await pause(TOLD_MS);
    await page.keyboard.press('Control+v', { delay: 30 });
    await pause(TOLD_MS);
    await setOwn(page, 'between');
    await pause(TOLD_MS);
    await copyAll(page, 'nach der neuen Größe');
    const now = await state(page);
    expect(now.state === 'connected' && now.attempt === undefined, `the page is ${now.state}`);
  },
  { permissions: ['clipboard-read', 'clipboard-write'] },
);
