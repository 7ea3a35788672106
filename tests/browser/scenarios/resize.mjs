// The desktop follows the window, and goes on working.

import { enter, typeAndSee } from '../desktops.mjs';
import { openDesktop, signIn, state } from '../person.mjs';
import { read, seen } from '../picture.mjs';
import { expect, keep, scenario, task } from '../stage.mjs';

/** Widths are even, and scrollbars or edges may take a little. */
const SLACK = 24;

await scenario(async (page) => {
  await signIn(page);
  await openDesktop(page, task.application);
  await enter(page, task.kind);
  const before = await read(page);
  for (const [width, height] of [[1000, 700], [1440, 900]]) {
    await page.setViewportSize({ width, height });
    await seen(page, `a desktop of ${width} × ${height}`, (now) =>
      Math.abs(now.width - width) <= SLACK && Math.abs(now.height - height) <= SLACK);
  }
  await typeAndSee(page, task.kind);
  await keep(page, `resize-${task.name}`);
  const now = await state(page);
  expect(now.state === 'connected' && now.attempt === undefined, `the page is ${now.state}`);
  expect(before.width !== (await read(page)).width, 'the desktop has its old size');
});
