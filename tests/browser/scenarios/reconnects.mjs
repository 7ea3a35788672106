// A desktop that is lost comes back by itself, without a new password.

import { enter, typeAndSee } from '../desktops.mjs';
import { openDesktop, reach, signIn } from '../person.mjs';
import { keep, order, scenario, tell, task, until } from '../stage.mjs';

await scenario(async (page) => {
  await signIn(page);
  await openDesktop(page, task.application);
  await enter(page, task.kind);
  await typeAndSee(page, task.kind, 0);
  tell('connected');
  await order();
  await until('the loss to be seen', () =>
    page.evaluate(() => document.body.dataset.state === 'reconnecting'));
  await keep(page, `reconnecting-${task.name}`);
  tell('lost');
  await reach(page, ['connected'], { past: ['reconnecting', 'connecting'] });
  await enter(page, task.kind);
  await typeAndSee(page, task.kind, 1);
  tell('back');
});
