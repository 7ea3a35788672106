// How each kind of desktop shows, in pixels, that it took what was typed.

import { type } from './person.mjs';
import { drawn, near, read, seen } from './picture.mjs';
import { expect, pause } from './stage.mjs';

/** The notes of the demo desktop, as fractions of the picture, and the colour of what is written. */
const NOTES = { left: 0.2, top: 0.44, right: 0.8, bottom: 0.6 };
const INK = [236, 240, 248];

/** The middle of the terminal of the X desktops, and its colour before anybody changes it. */
const TERMINAL = { left: 0.15, top: 0.15, right: 0.6, bottom: 0.6 };
const NIGHT = [14, 18, 34];

/** Goes through what comes before the desktop itself. */
export async function enter(page, kind) {
  await drawn(page);
  if (kind === 'xrdp') {
    // Its own dialog asks which session; there is one, and Enter takes it.
    await pause(500);
    await page.keyboard.press('Enter');
  }
  if (kind !== 'demo') {
    await seen(page, 'the terminal', (now) => near(now, NIGHT, TERMINAL) > size(now, TERMINAL) * 0.7);
  }
}

/** Pixels in an area. */
function size({ width, height }, { left, top, right, bottom }) {
  return width * (right - left) * height * (bottom - top);
}

/** Types on the desktop and sees it in the picture. `round` makes a second time differ. */
export async function typeAndSee(page, kind, round = 0) {
  if (kind === 'demo') {
    await typeNotes(page);
  } else {
    await colourTerminal(page, round);
  }
}

/** How many pixels of the demo desktop's notes are written on. */
export function inked(picture) {
  return near(picture, INK, NOTES);
}

async function typeNotes(page) {
  await click(page, 0.5, 0.9);
  const before = inked(await read(page));
  await type(page, 'Hello from a browser, 42!\n');
  // About 40 bright pixels a letter at this size; letters are lost first where keys are.
  await seen(page, 'the typed text in the notes', (now) => inked(now) - before > 500);
}

/** A terminal's own escape sequence paints its whole background: letters alone could be anything. */
async function colourTerminal(page, round) {
  const [name, colour] = [
    ['#2058c8', [0x20, 0x58, 0xc8]],
    ['#188848', [0x18, 0x88, 0x48]],
    ['#a03070', [0xa0, 0x30, 0x70]],
  ][round % 3];
  await click(page, 0.3, 0.3);
  const before = await read(page);
  const pixels = size(before, TERMINAL);
  expect(near(before, colour, TERMINAL) < pixels / 20, 'the terminal has the new colour already');
  await type(page, `clear; printf '\\033]11;${name}\\007'\n`);
  await seen(page, `a terminal in ${name}`, (now) => near(now, colour, TERMINAL) > pixels * 0.7);
}

/** Clicks on the picture, at fractions of it. */
export async function click(page, x, y) {
  const box = await page.locator('#stage canvas').first().boundingBox();
  await page.mouse.move(box.x + box.width * x - 3, box.y + box.height * y - 3);
  await page.mouse.move(box.x + box.width * x, box.y + box.height * y);
  await page.mouse.down();
  await page.mouse.up();
  await pause(150);
}
