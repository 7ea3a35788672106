// A desktop that goes on working while something behind it dies and comes back.

import { enter, typeAndSee } from '../desktops.mjs';
import { openDesktop, signIn, state } from '../person.mjs';
import { expect, keep, order, scenario, tell, task } from '../stage.mjs';

await scenario(async (page) => {
  await signIn(page);
  await openDesktop(page, task.application);
  await enter(page, task.kind);
  await typeAndSee(page, task.kind, 0);
  tell('connected');
  await order();
  await typeAndSee(page, task.kind, 1);
  const now = await state(page);
  expect(now.state === 'connected', `the page is ${now.state}`);
  expect(now.attempt === undefined, 'the page had to reconnect');
  await keep(page, `survives-${task.name}`);
  tell('still-working');
  await order();
  await typeAndSee(page, task.kind, 2);
});
