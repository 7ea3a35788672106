// Round-trip times to the gateway: a short history, its quality and its picture. No DOM, no clock.

/** Round-trip times in milliseconds, oldest first; undefined stands for a ping without an answer. */
export type Samples = readonly (number | undefined)[];

export const SAMPLES_MAX = 30;

export type Quality = 'good' | 'fair' | 'poor' | 'none';

const FAIR_MS = 80;
const POOR_MS = 200;

/** Appends a sample and forgets the oldest ones. */
export function withSample(samples: Samples, sample: number | undefined): Samples {
  return [...samples, sample].slice(-SAMPLES_MAX);
}

/** Judged by the median of the last five, so that one slow answer does not change the colour. */
export function qualityOf(samples: Samples): Quality {
  const last = samples.slice(-5);
  if (last.length === 0 || last[last.length - 1] === undefined) {
    return last.length === 0 ? 'none' : 'poor';
  }
  const sorted = last.map((sample) => sample ?? Infinity).sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] ?? Infinity;
  if (median < FAIR_MS) {
    return 'good';
  }
  return median < POOR_MS ? 'fair' : 'poor';
}

/** Points of an SVG polyline in a box of `width` × `height`, oldest first. */
export function sparkline(samples: Samples, width: number, height: number): string {
  const known = samples.filter((sample): sample is number => sample !== undefined);
  const top = Math.max(FAIR_MS, ...known);
  const step = width / (SAMPLES_MAX - 1);
  const start = width - step * (samples.length - 1);
  return samples
    .map((sample, index) => {
      const y = height - 1 - ((sample ?? top) / top) * (height - 2);
      return `${(start + index * step).toFixed(1)},${y.toFixed(1)}`;
    })
    .join(' ');
}
