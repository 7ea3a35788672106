// A connection that must not come to a desktop, with the reason and words for a person.

import { connect, pick, reach, signIn, words } from '../person.mjs';
import { expect, keep, scenario, tell, task } from '../stage.mjs';

await scenario(async (page) => {
  await signIn(page);
  await pick(page, task.application);
  await connect(page);
  await page.waitForFunction(() => document.body.dataset.state !== 'form', undefined, { timeout: 10_000 });
  // A page that would connect all the same shows it as a state that is not waited for.
  const end = await reach(page, ['ended', 'form'], { past: ['connecting', 'reconnecting'] });
  await keep(page, `refused-${task.name}`);
  const text = await words(page);
  tell('refused', { reason: end.reason, words: text });
  expect(end.reason === task.reason, `the reason is ${end.reason}, not ${task.reason}`);
  for (const part of task.words) {
    expect(text.toLowerCase().includes(part), `"${text}" lacks "${part}"`);
  }
});
