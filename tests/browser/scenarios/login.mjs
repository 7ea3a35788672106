// The sign-in page: a wrong password, the launcher's tiles, signing out; all without JavaScript.

import { signIn } from '../person.mjs';
import { expect, keep, scenario, task } from '../stage.mjs';

await scenario(
  async (page) => {
    await page.goto(task.url);
    expect(new URL(page.url()).pathname === '/login', `${page.url()} is not the sign-in page`);
    await keep(page, `login-${task.name}`);

    await signIn(page, { password: `${task.password} not` });
    const problem = await page.locator('#problem').innerText();
    expect(problem.length > 10, `"${problem}" is not much of an explanation`);
    expect(await page.locator('#tiles').count() === 0, 'a wrong password opens the launcher');

    await signIn(page);
    const names = await page.locator('#tiles a').evaluateAll((tiles) => tiles.map((tile) => tile.dataset.name));
    expect(
      JSON.stringify(names.sort()) === JSON.stringify([...task.tiles].sort()),
      `the tiles are ${names}, not ${task.tiles}`,
    );
    await keep(page, `tiles-${task.name}`);

    await page.click('#sign-out');
    await page.goto(task.url);
    expect(new URL(page.url()).pathname === '/login', 'signing out did not sign out');
    await page.goto(new URL(`/app/${task.tiles[0]}/`, task.url).href);
    expect(new URL(page.url()).pathname === '/login', 'the desktop page is open to nobody');
  },
  { javaScriptEnabled: false },
);
