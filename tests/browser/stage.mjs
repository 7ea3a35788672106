// What every scenario stands on: the task from the harness, a browser, events back to the harness.

import { createInterface } from 'node:readline';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

/** Longest wait for anything that the page should do. */
export const PATIENCE_MS = 30_000;
export const VIEWPORT = { width: 1280, height: 800 };

/** What the harness asks for, from the first argument. */
export const task = JSON.parse(process.argv[2] ?? '{}');

/** Tells the harness that something has happened. */
export function tell(event, details = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...details })}\n`);
}

const orders = [];
const waiting = [];
createInterface({ input: process.stdin }).on('line', (line) => {
  const taker = waiting.shift();
  if (taker === undefined) {
    orders.push(line);
  } else {
    taker(line);
  }
});

/** The next line from the harness. */
export function order() {
  const line = orders.shift();
  return line === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(line);
}

/** Fails with what was expected and what is. */
export function expect(holds, what) {
  if (!holds) {
    throw new Error(what);
  }
}

/** Waits until `look` yields something true, and returns that. */
export async function until(what, look, patience = PATIENCE_MS) {
  const end = Date.now() + patience;
  let last;
  for (;;) {
    last = await look();
    if (last) {
      return last;
    }
    if (Date.now() > end) {
      throw new Error(`${what}: not within ${patience / 1000} s`);
    }
    await pause(100);
  }
}

export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Keeps a picture of the page for people to look at. */
export async function keep(page, name) {
  mkdirSync(task.artefacts, { recursive: true });
  await page.screenshot({ path: join(task.artefacts, `${name}.png`) });
}

/** Runs `play` with a fresh page of a fresh browser; the exit code says how it went. */
export async function scenario(play, options = {}) {
  const browser = await chromium.launch({
    executablePath: task.chromium,
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  let failed = false;
  try {
    const context = await browser.newContext({
      ignoreHTTPSErrors: true,
      viewport: VIEWPORT,
      colorScheme: 'dark',
      ...options,
    });
    const page = await context.newPage();
    page.on('console', (message) => process.stderr.write(`page: ${message.type()}: ${message.text()}\n`));
    page.on('pageerror', (error) => process.stderr.write(`page: ${error.stack ?? error}\n`));
    try {
      await play(page, context);
    } catch (error) {
      failed = true;
      process.stderr.write(`${error.stack ?? error}\n`);
      process.stderr.write(`at ${page.url()}: ${JSON.stringify(await said(page))}\n`);
      await keep(page, `failed-${task.name}`).catch(() => undefined);
    }
  } finally {
    await browser.close();
  }
  tell(failed ? 'failed' : 'passed');
  process.exit(failed ? 1 : 0);
}

/** What the page says of itself, for messages. */
async function said(page) {
  try {
    return await page.evaluate(() => ({ ...document.body.dataset, text: document.body.innerText.slice(0, 600) }));
  } catch {
    return 'nothing';
  }
}
