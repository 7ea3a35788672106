// What the bar offers: keys that a browser keeps for itself, typing by character, full screen.

import { click, enter, inked } from '../desktops.mjs';
import { openDesktop, signIn } from '../person.mjs';
import { read, seen } from '../picture.mjs';
import { expect, keep, scenario, task, until } from '../stage.mjs';

/** Where the demo desktop counts the keys that it has got. */
const COUNTER = { left: 0, top: 0.96, right: 0.085, bottom: 1 };

async function openBar(page) {
  if ((await page.getAttribute('#bar', 'data-open')) !== 'true') {
    await page.click('#bar-handle');
    await page.waitForSelector('#bar[data-open="true"]', { timeout: 5_000 });
  }
}

/** The pixels of the counter. */
function counter({ width, height, pixels }) {
  const part = [];
  for (let y = Math.floor(COUNTER.top * height); y < height; y += 1) {
    const row = y * width;
    part.push(...pixels.slice(row * 4, (row + Math.floor(COUNTER.right * width)) * 4));
  }
  return part;
}

function differences(one, other) {
  return one.reduce((count, value, at) => count + (Math.abs(value - other[at]) > 60 ? 1 : 0), 0);
}

/** A key event of a keyboard that the computer's layout does not have. */
async function typeCharacter(page, character) {
  const devtools = await page.context().newCDPSession(page);
  const key = { key: character, code: 'KeyQ' };
  await devtools.send('Input.dispatchKeyEvent', { type: 'keyDown', text: character, ...key });
  await devtools.send('Input.dispatchKeyEvent', { type: 'keyUp', ...key });
  await devtools.detach();
}

await scenario(async (page) => {
  await signIn(page);
  await openDesktop(page, task.application);
  await enter(page, task.kind);
  await click(page, 0.5, 0.9);

  const before = counter(await read(page));
  await openBar(page);
  await page.click('#keys');
  await page.click('[data-keys="ctrl-alt-del"]');
  await seen(page, 'Ctrl+Alt+Del in the count of keys', (now) => differences(counter(now), before) > 10);

  await openBar(page);
  if (!(await page.locator('#unicode').isVisible())) {
    await page.click('#keys');
  }
  await page.locator('#unicode').check();
  await click(page, 0.5, 0.9);
  const empty = inked(await read(page));
  for (const character of 'üßéäö') {
    await typeCharacter(page, character);
  }
  await seen(page, 'letters of another layout in the notes', (now) => inked(now) - empty > 100);
  await keep(page, `controls-${task.name}`);

  await openBar(page);
  await page.click('#fullscreen');
  await until('full screen', () => page.evaluate(() => document.fullscreenElement !== null));
  await openBar(page);
  await page.click('#fullscreen');
  await until('the end of full screen', () => page.evaluate(() => document.fullscreenElement === null));
  expect((await page.getAttribute('body', 'data-state')) === 'connected', 'the desktop is gone');
});
