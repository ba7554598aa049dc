/**
 * A strict project that checks our declarations compiles, with an old library and none that knows a page. `npm run
 * test:package` does so with four TypeScripts and every module resolution.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { fileURLToPath } from "node:url";
import { ROOT } from "../support/root.js";

const root = fileURLToPath(ROOT);

// All of them, also those that index.d.ts does not lead to: JSR reads each beside its JavaScript.
test("the declarations compile without skipLibCheck", () => {
  const folder = mkdtempSync(join(tmpdir(), "wasm-lora-types-"));
  try {
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(root, join(folder, "node_modules/wasm-lora"));
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    writeFileSync(
      join(folder, "app.ts"),
      'import { init, lora, type Tensor, tensor } from "wasm-lora";\nimport { inlineModule } from ' +
        '"wasm-lora/inline";\n' +
        "await init({ module: await inlineModule() });\nexport const y: Tensor = new lora.Linear(2, 2, { r: [1][1] " +
        "}).forward(tensor([[1, 2]]));\n",
    );
    const compilerOptions = {
      strict: true,
      noEmit: true,
      skipLibCheck: false,
      exactOptionalPropertyTypes: true,
      types: [],
      lib: ["es2022"],
      target: "es2022",
      module: "nodenext",
    };
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({
        compilerOptions,
        include: ["app.ts", `${root}dist/src/**/*.d.ts`],
        exclude: [`${root}dist/src/cli`],
      }),
    );
    const { status, stdout } = spawnSync(
      process.execPath,
      [join(root, "node_modules/typescript/bin/tsc"), "-p", folder],
      { encoding: "utf8", cwd: folder },
    );
    assert.equal(status, 0, stdout);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.run();
