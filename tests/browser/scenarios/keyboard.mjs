// The whole way without a mouse.

import { enter } from '../desktops.mjs';
import { reach } from '../person.mjs';
import { expect, keep, scenario, task } from '../stage.mjs';

/** Presses Tab until `selector` has the focus. */
async function tabTo(page, selector) {
  for (let nth = 0; nth < 40; nth += 1) {
    if (await page.evaluate((wanted) => document.activeElement?.matches(wanted) ?? false, selector)) {
      return;
    }
    await page.keyboard.press('Tab');
  }
  throw new Error(`Tab does not reach ${selector}`);
}

await scenario(async (page) => {
  await page.goto(task.url);
  expect(await page.evaluate(() => document.activeElement?.id === 'user'), 'the user name has no focus');
  await page.keyboard.insertText(task.user);
  await tabTo(page, '#password');
  await page.keyboard.insertText(task.password);
  await page.keyboard.press('Enter');

  await page.waitForSelector('#tiles');
  await tabTo(page, `#tiles a[data-name="${task.application}"]`);
  await page.keyboard.press('Enter');

  await page.waitForSelector('body[data-ready="true"]', { timeout: 30_000 });
  await tabTo(page, '#machine-user');
  await page.keyboard.insertText(task.machineUser);
  await tabTo(page, '#machine-password');
  await page.keyboard.insertText(task.machinePassword);
  await page.keyboard.press('Enter');
  await reach(page, ['connected'], { past: ['form', 'connecting'] });
  await enter(page, task.kind);

  await page.keyboard.press('Control+Alt+Home');
  await page.waitForSelector('#bar[data-open="true"]', { timeout: 5_000 });
  await keep(page, `keyboard-${task.name}`);
  await tabTo(page, '#disconnect');
  await page.keyboard.press('Enter');
  const { reason } = await reach(page, ['ended', 'form']);
  expect(reason === 'disconnected', `the reason is ${reason}`);
});
