// The pictures of the README: a launcher with several desktops, and a desktop with its bar open.

import { enter, typeAndSee } from '../desktops.mjs';
import { connect, pick, reach, signIn, type } from '../person.mjs';
import { keep, pause, scenario, task } from '../stage.mjs';

await scenario(async (page) => {
  await signIn(page);
  await page.locator('#tiles a').first().waitFor();
  await page.hover('#tiles li:nth-child(2) a');
  await pause(400);
  await keep(page, 'readme-launcher');
  await pick(page, task.application);
  await connect(page);
  await reach(page, ['connected'], { past: ['form', 'connecting'] });
  await enter(page, task.kind);
  await typeAndSee(page, task.kind);
  await type(page, 'This desktop is in a browser tab.\nNothing was installed to reach it.\n');
  for (const [x, y] of [[250, 690], [330, 640], [420, 675], [1010, 250], [930, 275]]) {
    await page.mouse.click(x, y);
    await pause(120);
  }
  await page.click('#bar-handle');
  await page.waitForSelector('#bar[data-open]');
  // The line of the latency takes a few measurements.
  await pause(8_000);
  await page.mouse.move(700, 640, { steps: 12 });
  await pause(900);
  await keep(page, 'readme-desktop');
});
