/** wasm-lora export: files on a disk, and what is said of them. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import { exportAdapter, init, models, peft } from "../../src/index.js";
import { BASE_MODEL, refuse, succeed, temporaryFolder } from "../support/cli.js";
import { familyPath } from "../support/families.js";

await init();
const folder = temporaryFolder();
const ZOO = familyPath("zoo");
const FROM = ["--adapter", join(ZOO, "patterns"), "--base", join(ZOO, "base")];

test("gguf: one file, the library's, and the largest difference told", async () => {
  const { stdout } = await succeed(folder, [
    "export",
    ...FROM,
    "--to",
    "gguf",
    "--dtype",
    "f16",
    "--out",
    "new/a.gguf",
  ]);
  const { files, folded } = exportAdapter(join(ZOO, "patterns"), {
    to: "gguf",
    base: join(ZOO, "base"),
    dtype: "float16",
  });
  assert.deepEqual(readFileSync(join(folder, "new/a.gguf")), Buffer.from(files.get("adapter.gguf")!));
  assert.match(stdout, /21 modules, f16/);
  assert.match(stdout, new RegExp(`${folded} have their own scaling in B`));
  assert.match(
    stdout,
    /Read back: the update differs by at most \d\.\de-\d where it is up to 1\.8e-1 \(f16, rounded to/,
  );
});

test("folders: the target's files and no others, and nothing is overwritten", async () => {
  for (const [to, files] of [
    ["gguf", ["adapter.gguf"]],
    ["ollama", ["Modelfile", "adapter.gguf"]],
    ["mlx", ["adapter_config.json", "adapters.safetensors"]],
    ["peft", ["adapter_config.json", "adapter_model.safetensors"]],
    ["workers-ai", ["adapter_config.json", "adapter_model.safetensors"]],
  ] as const) {
    await succeed(folder, ["export", ...FROM, "--to", to, "--out", to]);
    assert.deepEqual(readdirSync(join(folder, to)).sort(), files);
    await refuse(folder, ["export", ...FROM, "--to", to, "--out", to], "FileError", to, "not empty");
  }
  writeFileSync(join(folder, "there.gguf"), "mine");
  await refuse(folder, ["export", ...FROM, "--to", "gguf", "--out", "there.gguf"], "FileError", "there.gguf");
  assert.equal(readFileSync(join(folder, "there.gguf"), "utf8"), "mine");
});

test("ollama: a Modelfile with the template of the adapter's own base", async () => {
  // An adapter that names no base was made for the embedded one.
  const { model } = models.loadModel(BASE_MODEL);
  peft.getLoraModel(model, { r: 4, targetModules: ["q_proj", "v_proj"] }).savePretrained(join(folder, "own"));
  model.dispose();
  const { stdout } = await succeed(folder, [
    ...["export", "--adapter", "own", "--to", "ollama", "--from", "hf.co/me/base-GGUF", "--out", "for-ollama"],
  ]);
  assert.equal(
    readFileSync(join(folder, "for-ollama/Modelfile"), "utf8"),
    [
      "FROM hf.co/me/base-GGUF",
      "ADAPTER ./adapter.gguf",
      'TEMPLATE """{{ if .System }}{{ .System }}',
      "",
      "{{ end }}{{ if .Prompt }}Q: {{ .Prompt }}",
      "{{ end }}A:",
      '{{ .Response }}<|endoftext|>"""',
      'PARAMETER stop "<|endoftext|>"',
      "",
    ].join("\n"),
  );
  assert.match(stdout, /ollama create <name> -f Modelfile/);
});

test("refusals name what it is, and leave nothing behind", async () => {
  const base = ["--base", join(ZOO, "base")];
  for (const [args, ...words] of [
    [["--adapter", join(ZOO, "dora"), ...base, "--to", "gguf"], "ArgumentError", "useDora", "wasm-lora merge"],
    [["--adapter", join(ZOO, "plain"), ...base, "--to", "mlx", "--from", "x"], "ArgumentError", "from", "Ollama"],
    [["--adapter", join(ZOO, "plain"), "--base", "nowhere", "--to", "gguf"], "FileError", "nowhere"],
    [["--adapter", "nowhere", ...base, "--to", "gguf"], "FileError", "nowhere"],
  ] as const) {
    await refuse(folder, ["export", ...args, "--out", "never"], ...(words as readonly [string, ...string[]]));
    assert.ok(!existsSync(join(folder, "never")));
  }
  // The adapter's config names a base that is nowhere: what is asked for is this command's option.
  const { model } = models.loadModel(BASE_MODEL);
  const adapted = peft.getLoraModel(model, { r: 4, targetModules: ["q_proj"] });
  adapted.savePretrained(join(folder, "lost"));
  const config = join(folder, "lost/adapter_config.json");
  for (const name of ["./gone", "example/gone"]) {
    const json = { ...JSON.parse(readFileSync(config, "utf8")), base_model_name_or_path: name };
    writeFileSync(config, JSON.stringify(json));
    const args = ["export", "--adapter", "lost", "--to", "gguf", "--out", "never"];
    await refuse(folder, args, "FileError", name, "adapter's base", "--base");
  }
  mkdirSync(join(folder, "empty"));
  await refuse(folder, ["export", ...FROM, "--to", "onnx", "--out", "empty"], "error", "--to", "gguf");
  await refuse(folder, ["export", ...FROM, "--to", "gguf", "--dtype", "q8_0", "--out", "empty"], "error", "--dtype");
  await refuse(folder, ["export", ...FROM, "--out", "empty"], "error", "--to");
  assert.deepEqual(readdirSync(join(folder, "empty")), []);
});

test.run();
