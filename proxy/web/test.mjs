// Runs test/*.test.ts with Node's own test runner: `npm test`. esbuild compiles them first.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { buildSync } from 'esbuild';

const here = path.dirname(fileURLToPath(import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), 'postern-web-'));
let status = 1;
try {
  const tests = readdirSync(path.join(here, 'test')).filter((name) => name.endsWith('.test.ts'));
  buildSync({
    absWorkingDir: here,
    entryPoints: tests.map((name) => path.join('test', name)),
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node18',
    sourcemap: 'inline',
    logLevel: 'warning',
  });
  const compiled = tests.map((name) => path.join(folder, name.replace(/\.ts$/, '.mjs')));
  status = spawnSync(process.execPath, ['--test', ...compiled], { stdio: 'inherit' }).status ?? 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(status);
