// Sign in, launcher, desktop, type, see it, disconnect.

import { enter, typeAndSee } from '../desktops.mjs';
import { openDesktop, reach, signIn } from '../person.mjs';
import { expect, keep, scenario, task } from '../stage.mjs';

await scenario(async (page) => {
  await signIn(page);
  await page.waitForSelector('#tiles', { timeout: 10_000 });
  await keep(page, `launcher-${task.name}`);
  await openDesktop(page, task.application);
  await enter(page, task.kind);
  await typeAndSee(page, task.kind);
  await keep(page, `desktop-${task.name}`);
  await page.evaluate(() => document.querySelector('#disconnect').click());
  const { reason } = await reach(page, ['ended', 'form']);
  expect(reason === undefined || reason === 'disconnected', `the reason is ${reason}`);
});
