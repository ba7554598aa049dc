/**
 * One ES module for each test file and target, in dist/matrix/<target>/. It exports `run`. Tests and library are
 * those that `npm run build` left in dist/; only the imports below are answered otherwise.
 * dist/matrix/fixtures.bin holds the files that tests read, for runtimes without a disk.
 */
import { build } from "esbuild";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../../", import.meta.url));
export const bundles = join(root, "dist/matrix");
const adapter = (name) => fileURLToPath(new URL(`adapters/${name}.mjs`, import.meta.url));

/** Tests that need what not every runtime has; why is in README.md. */
export const EXCLUDED = ["unit/house/", "unit/io/files", "unit/runtime/init", "unit/runtime/threads"];

const EVERYWHERE = { "node:assert/strict": "assert", "fast-check": "fast_check" };
const IN_MEMORY = { ...EVERYWHERE, "node:fs": "files", "node:os": "files", "node:path": "files", "node:url": "files" };

export const TARGETS = {
  server: { replaced: EVERYWHERE, options: { platform: "node" } },
  web: {
    replaced: IN_MEMORY,
    fixtures: "fixtures.web",
    options: { platform: "browser", inject: [adapter("globals")] },
  },
  workerd: {
    replaced: { ...IN_MEMORY, "fused_engine.js": "fused_engine.workerd", "probes_module.js": "probes.workerd" },
    fixtures: "fixtures.workerd",
    options: {
      platform: "neutral",
      mainFields: ["module", "main"],
      conditions: ["workerd"],
      external: ["*.wasm", "*.bin"],
      inject: [adapter("globals")],
      define: { "import.meta.url": '"file:///dist/matrix/workerd/module.js"' },
    },
  },
};

/** The adapters' own imports are the real packages. */
const replace = (replaced) => ({
  name: "replace",
  setup({ onResolve }) {
    onResolve({ filter: /^node:|^fast-check$|\/(fused_engine|probes_module)\.js$/ }, ({ path, importer }) => {
      const name = replaced[path.startsWith(".") ? basename(path) : path];
      return name && !importer.includes("/matrix/adapters/") ? { path: adapter(name) } : undefined;
    });
  },
});

/** "golden/lora", "unit/io/json", ... of every portable test file. */
export function suites() {
  return ["golden", "property", "unit"]
    .flatMap((folder) =>
      readdirSync(join(root, "test", folder), { recursive: true })
        .filter((file) => file.endsWith(".test.ts"))
        .sort()
        .map((file) => `${folder}/${file.replace(".test.ts", "")}`),
    )
    .filter((name) => !EXCLUDED.some((start) => name.startsWith(start)));
}

/** The bundle's file within its target's folder; all lie as deep as dist/test/support, so root.ts is right. */
export function fileOf(name) {
  return `${name.replaceAll("/", "-")}.js`;
}

async function bundle(target, name) {
  const { replaced, fixtures, options } = TARGETS[target];
  const test = name === "digest" ? "./test/matrix/digest.mjs" : `./dist/test/${name}.test.js`;
  await build({
    stdin: {
      resolveDir: root,
      contents:
        (fixtures ? `import "${adapter(fixtures)}";\n` : "") +
        (name === "digest"
          ? `export { digest as run } from "${test}";`
          : `import "${adapter("uvu_globals")}";\nimport "${test}";\nexport { run } from "./test/matrix/uvu.mjs";`),
    },
    bundle: true,
    format: "esm",
    target: "es2022",
    outfile: join(bundles, target, fileOf(name)),
    plugins: [replace(replaced)],
    logLevel: "error",
    // package.json names the library's files with side effects; tests have them too.
    ignoreAnnotations: true,
    // A module prints the names of its classes.
    keepNames: true,
    // Bun gives a tag the escapes of what is not ASCII instead of the characters (oven-sh/bun#8745); lowered, they are
    // plain strings.
    supported: { "template-literal": false },
    ...options,
  });
}

function packFixtures() {
  const files = ["test/fixtures", "models/base"]
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true }).map((file) => `${folder}/${file}`))
    .filter(
      (file) => /\.(safetensors|gguf|jsonl?|csv|tsv|parquet|jinja)$/.test(file) && statSync(join(root, file)).isFile(),
    )
    .concat("build/wasm-lora.probes.wasm")
    .sort();
  const index = {};
  const parts = [];
  let at = 0;
  for (const file of files) {
    const bytes = readFileSync(join(root, file));
    // Eight-byte steps: a tensor's bytes stay aligned as they are in the file.
    const padding = Buffer.alloc(-bytes.length & 7);
    index[file] = [at, at + bytes.length];
    at += bytes.length + padding.length;
    parts.push(bytes, padding);
  }
  let header = Buffer.from(JSON.stringify(index));
  header = Buffer.concat([header, Buffer.alloc(-(4 + header.length) & 7, " ")]);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(header.length);
  writeFileSync(join(bundles, "fixtures.bin"), Buffer.concat([length, header, ...parts]));
}

/** Bundles everything anew. @param onProgress called with each bundle made */
export async function bundleAll(names, onProgress) {
  rmSync(bundles, { recursive: true, force: true });
  mkdirSync(bundles, { recursive: true });
  packFixtures();
  for (const target of Object.keys(TARGETS)) {
    for (const name of names) {
      await bundle(target, name);
      onProgress(`${target} ${name}`);
    }
  }
}
