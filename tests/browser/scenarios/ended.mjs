// A live desktop that the gateway ends: the page says why, in words, at once.

import { enter } from '../desktops.mjs';
import { openDesktop, reach, signIn, words } from '../person.mjs';
import { expect, keep, order, scenario, tell, task } from '../stage.mjs';

await scenario(async (page) => {
  await signIn(page);
  await openDesktop(page, task.application);
  await enter(page, task.kind);
  tell('connected');
  const begun = await order();
  expect(begun === 'ending', `the harness says ${begun}`);
  const start = Date.now();
  if (task.warns !== undefined) {
    await page.waitForSelector(`#warning[data-kind="${task.warns}"]:not([hidden])`, { timeout: task.withinMs });
    await keep(page, `warned-${task.name}`);
    tell('warned');
  }
  const end = await reach(page, ['ended', 'form'], { past: ['connected', 'reconnecting'] });
  const elapsed = Date.now() - start;
  const text = await words(page);
  await keep(page, `ended-${task.name}`);
  tell('ended', { reason: end.reason, words: text, elapsed });
  expect(end.reason === task.reason, `the reason is ${end.reason}, not ${task.reason}`);
  expect(elapsed < task.withinMs, `the page took ${elapsed} ms`);
  expect(text.length > 20, `"${text}" is not much of an explanation`);
});
