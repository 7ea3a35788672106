// The desktop's picture, read from the canvas itself and not from what the page says about it.

import { expect, until } from './stage.mjs';

/** How far a colour channel may be off: RDP's codecs are lossy. */
const COLOUR_TOLERANCE = 28;

/** Reads the canvas as { width, height, pixels } with `pixels` as RGBA bytes. */
export async function read(page) {
  const { width, height, base64 } = await page.locator('#stage canvas').first().evaluate((canvas) => {
    const copy = document.createElement('canvas');
    copy.width = canvas.width;
    copy.height = canvas.height;
    const context = copy.getContext('2d', { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const { data } = context.getImageData(0, 0, copy.width, copy.height);
    let text = '';
    for (let at = 0; at < data.length; at += 0x8000) {
      text += String.fromCharCode.apply(null, data.subarray(at, at + 0x8000));
    }
    return { width: copy.width, height: copy.height, base64: btoa(text) };
  });
  return { width, height, pixels: Buffer.from(base64, 'base64') };
}

/** How many different colours there are, counted roughly. */
export function colours({ pixels }) {
  const seen = new Set();
  for (let at = 0; at < pixels.length; at += 4) {
    seen.add(((pixels[at] >> 4) << 8) | ((pixels[at + 1] >> 4) << 4) | (pixels[at + 2] >> 4));
  }
  return seen.size;
}

/** How many pixels inside of `area` (fractions of the picture) are close to `colour`. */
export function near({ width, height, pixels }, colour, area = { left: 0, top: 0, right: 1, bottom: 1 }) {
  let count = 0;
  for (let y = Math.floor(area.top * height); y < Math.floor(area.bottom * height); y += 1) {
    for (let x = Math.floor(area.left * width); x < Math.floor(area.right * width); x += 1) {
      const at = (y * width + x) * 4;
      const off = Math.max(
        Math.abs(pixels[at] - colour[0]),
        Math.abs(pixels[at + 1] - colour[1]),
        Math.abs(pixels[at + 2] - colour[2]),
      );
      count += off <= COLOUR_TOLERANCE ? 1 : 0;
    }
  }
  return count;
}

/** Waits for a picture that `judge` accepts. */
export async function seen(page, what, judge) {
  return until(what, async () => {
    const picture = await read(page);
    return judge(picture) ? picture : undefined;
  });
}

/** Waits until there is more than an empty screen. */
export async function drawn(page) {
  const picture = await seen(page, 'a picture of the desktop', (now) => now.width > 0 && colours(now) >= 3);
  expect(picture.width >= 320 && picture.height >= 200, `the picture is ${picture.width} × ${picture.height}`);
  return picture;
}
