// Bundles client/ and the RDP component into one folder of hashed, precompressed files.
//
//   node build.mjs DIST [--quick]
//
// --quick compresses the large files less: seconds less for a build that only tests use.
// DIST/manifest.tsv lists them for build.rs: source name, file, media type, and whether the
// uncompressed form is embedded too ("identity") or only the compressed ones ("compressed").

import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import zlib from 'node:zlib';

import { build } from 'esbuild';

const here = path.dirname(fileURLToPath(import.meta.url));
const quick = process.argv.includes('--quick');
const dist = path.resolve(process.argv.slice(2).find((argument) => !argument.startsWith('--')) ?? 'dist');

/** Larger files are embedded compressed only: every browser that runs WASM takes gzip. */
const IDENTITY_BYTES_MAX = 64 * 1024;

const MEDIA_TYPES = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
};

const COMMON = {
  absWorkingDir: here,
  outdir: dist,
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  legalComments: 'none',
  logLevel: 'warning',
  entryNames: '[name]-[hash]',
  chunkNames: '[name]-[hash]',
  assetNames: '[name]-[hash]',
  publicPath: '/assets',
};

const WASM_URL = /"data:application\/wasm;base64,([A-Za-z0-9+/]+={0,2})"/g;

/**
 * Takes the WASM out of the npm package's script into a file of its own, so that the script stays
 * small, the WASM compiles while it streams in, and the content security policy needs no `data:`.
 */
function extractWasm() {
  const folder = path.join(dist, 'extracted');
  const wasm = path.join(folder, 'ironrdp.wasm');
  let extracted = false;
  return {
    plugin: {
      name: 'extract-wasm',
      setup(bundler) {
        bundler.onLoad({ filter: /iron-remote-desktop-rdp\.js$/ }, async (file) => {
          const source = await readFile(file.path, 'utf8');
          const found = [...source.matchAll(WASM_URL)];
          if (found.length !== 1) {
            throw new Error(`${file.path} holds ${found.length} inlined WASM modules, not 1: its layout has changed`);
          }
          const bytes = Buffer.from(found[0][1], 'base64');
          if (bytes.subarray(0, 4).toString('latin1') !== '\0asm') {
            throw new Error(`what ${file.path} inlines is not WASM`);
          }
          await mkdir(folder, { recursive: true });
          await writeFile(wasm, bytes);
          extracted = true;
          // `new URL(x, import.meta.url)` works on absolute paths; the import gives the hashed name.
          const contents = `import ironrdpWasm from ${JSON.stringify(wasm)};\n${source.replace(WASM_URL, 'ironrdpWasm')}`;
          return { contents, loader: 'js' };
        });
      },
    },
    assertDone() {
      if (!extracted) {
        throw new Error('the RDP package was not bundled, so its WASM was not extracted');
      }
    },
  };
}

async function bundle() {
  const wasm = extractWasm();
  const outputs = await Promise.all([
    build({
      ...COMMON,
      entryPoints: ['client/page.ts', 'client/desktop.ts'],
      format: 'esm',
      splitting: true,
      target: ['es2022', 'chrome109', 'firefox115', 'safari16.4'],
      loader: { '.wasm': 'file' },
      plugins: [wasm.plugin],
    }),
    // Runs before the first paint and therefore is a classic script in the head.
    build({ ...COMMON, entryPoints: ['client/theme.ts'], format: 'iife', target: 'es2022' }),
    build({ ...COMMON, entryPoints: ['client/page.css'], target: ['chrome109', 'firefox115', 'safari16.4'] }),
  ]);
  wasm.assertDone();
  return outputs.flatMap(({ outputFiles, metafile }) =>
    outputFiles.map((file) => {
      const output = metafile.outputs[path.relative(here, file.path)];
      return {
        // Files that only other files ask for need no name in the pages.
        name: output?.entryPoint?.startsWith('client/') ? path.basename(output.entryPoint) : '',
        file: path.basename(file.path),
        bytes: Buffer.from(file.contents),
      };
    }),
  );
}

async function copied(name) {
  const bytes = await readFile(path.join(here, 'client', name));
  const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 8).toUpperCase();
  const { name: stem, ext } = path.parse(name);
  return { name, file: `${stem}-${hash}${ext}`, bytes };
}

const gzip = promisify(zlib.gzip);
const brotli = promisify(zlib.brotliCompress);

async function store({ name, file, bytes }) {
  const mediaType = MEDIA_TYPES[path.extname(file)];
  if (!mediaType) {
    throw new Error(`${file}: no media type is known for it`);
  }
  const [zipped, squeezed] = await Promise.all([
    gzip(bytes, { level: quick ? 5 : 9 }),
    brotli(bytes, {
      params: {
        [zlib.constants.BROTLI_PARAM_QUALITY]: quick ? 5 : 11,
        [zlib.constants.BROTLI_PARAM_LGWIN]: 22,
        [zlib.constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
      },
    }),
  ]);
  const target = path.join(dist, file);
  await Promise.all([writeFile(target, bytes), writeFile(`${target}.gz`, zipped), writeFile(`${target}.br`, squeezed)]);
  const form = bytes.length <= IDENTITY_BYTES_MAX ? 'identity' : 'compressed';
  return { line: [name, file, mediaType, form].join('\t'), size: [file, bytes.length, zipped.length, squeezed.length] };
}

await rm(dist, { recursive: true, force: true });
await mkdir(dist, { recursive: true });
const files = [...(await bundle()), await copied('mark.svg')];
const stored = await Promise.all(files.map(store));
await writeFile(path.join(dist, 'manifest.tsv'), stored.map(({ line }) => `${line}\n`).join(''));
for (const { size } of stored) {
  console.log(size.join('\t'));
}
