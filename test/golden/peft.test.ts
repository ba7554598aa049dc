/**
 * Adapter folders that PEFT 0.21 wrote (test/fixtures/peft/make.py): which modules they adapt, by how much, and that
 * writing what was read, or saving the model that loaded it, gives PEFT's bytes, but for the digests in the metadata.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import { fileURLToPath } from "node:url";
import { init, nn, peft } from "../../src/index.js";
import { readPeftAdapter, writePeftAdapter } from "../../src/io/peft/folder.js";
import { peftEmbeddingKey, peftKey } from "../support/peft_keys.js";
import type { StateEntry } from "../../src/runtime/state_entry.js";
import { parseSafetensors, serializeSafetensors } from "../../src/io/safetensors.js";
import { assertClose, f32, readGolden } from "../support/golden.js";
import { ROOT } from "../support/root.js";
import { layersOf } from "../support/peft.js";
import { scalingOf, targets } from "../support/peft_rules.js";

const FIXTURES = fileURLToPath(new URL("test/fixtures/peft/", ROOT));
const folder = mkdtempSync(join(tmpdir(), "peft-golden-"));
await init();
test.after(() => rmSync(folder, { recursive: true }));

/** make.py's model. */
class Model extends nn.Module {
  readonly model = new Decoder();
  readonly score = new nn.Linear(5, 3);
}
class Projections extends nn.Module {
  readonly qProj = new nn.Linear(6, 5);
  readonly vProj = new nn.Linear(6, 4);
}
class Decoder extends nn.Module {
  readonly wte = new nn.Embedding(7, 6);
  readonly layers = Array.from({ length: 2 }, () => new Projections());
  readonly conv1 = new nn.Conv1d(4, 6, 3);
  readonly conv2 = new nn.Conv2d(4, 6, 3, { groups: 2 });
  readonly conv3 = new nn.Conv3d(2, 3, 2);
  readonly norm = new nn.LayerNorm(5);
}

/** The file as PEFT writes it, whose metadata is the format alone. */
function withoutDigests(bytes: Uint8Array): Uint8Array {
  const { metadata, tensors } = parseSafetensors(bytes);
  assert.deepEqual(Object.keys(metadata).sort(), ["config", "digest", "format"]);
  return serializeSafetensors(
    [...tensors.values()].map(({ bytes: data, ...tensor }) => ({ ...tensor, data })),
    { format: "pt" },
  );
}

/** s B A with all of A's dimensions but the first as one, in float64. */
function deltaWeight(a: StateEntry, b: StateEntry, s: number): number[] {
  const r = a.shape[0]!;
  const columns = a.data.length / r;
  return Array.from({ length: b.shape[0]! * columns }, (_, i) => {
    let sum = 0;
    for (let t = 0; t < r; t++) sum += b.data[Math.floor(i / columns) * r + t]! * a.data[t * columns + (i % columns)]!;
    return s * sum;
  });
}

function transpose(data: number[], rows: number): number[] {
  const columns = data.length / rows;
  return data.map((_, i) => data[(i % rows) * columns + Math.floor(i / rows)]!);
}

/** What differs by the writer and not by the adapter: PEFT names a class of its own. */
function asOurs(config: string): string {
  return config.replace(/"auto_mapping": \{[^}]*\}/, '"auto_mapping": null');
}

for (const { name } of readdirSync(FIXTURES, { withFileTypes: true }).filter((entry) => entry.isDirectory())) {
  test(`PEFT's folder ${name}`, () => {
    const directory = join(FIXTURES, name);
    const golden = readGolden(`peft/${name}/delta_weights`);
    const { config, tensors } = readPeftAdapter(directory);
    const scaling = JSON.parse(golden.metadata["scaling"]!) as Record<string, number>;
    const kinds = JSON.parse(golden.metadata["modules"]!) as Record<string, string>;

    const adapted = Object.entries(kinds)
      .filter(([path, kind]) => targets(config, path, kind === "Linear", false))
      .map(([path]) => path);
    assert.deepEqual(adapted.sort(), Object.keys(scaling).sort());
    for (const [path, s] of Object.entries(scaling)) assert.equal(scalingOf(config, path), s, path);

    for (const path of golden.tensors.keys()) {
      const isEmbedding = kinds[path] === "Embedding";
      const a = tensors.get(isEmbedding ? peftEmbeddingKey(path, "lora_embedding_A") : peftKey(path, "lora_A"))!;
      const b = tensors.get(isEmbedding ? peftEmbeddingKey(path, "lora_embedding_B") : peftKey(path, "lora_B"))!;
      const delta = deltaWeight(a, b, scaling[path]!);
      assertClose(path, isEmbedding ? transpose(delta, b.shape[0]!) : delta, f32(golden, path).data);
    }

    const copy = join(folder, name);
    writePeftAdapter(
      copy,
      config,
      [...tensors].map(([key, tensor]) => ({ name: key, ...tensor })),
    );
    assert.deepEqual(
      withoutDigests(readFileSync(join(copy, "adapter_model.safetensors"))),
      new Uint8Array(readFileSync(join(directory, "adapter_model.safetensors"))),
    );
    assert.equal(
      readFileSync(join(copy, "adapter_config.json"), "utf8"),
      asOurs(readFileSync(join(directory, "adapter_config.json"), "utf8")),
    );

    if (config.useDora) {
      // PEFT's norms of a grouped convolution are not those of its result.
      assert.throws(() => peft.LoraModel.fromPretrained(new Model(), directory), {
        message: /groups = 2 .*without DoRA/,
      });
      return;
    }
    const model = peft.LoraModel.fromPretrained(new Model(), directory);
    assert.deepEqual(
      layersOf(model)
        .map(({ path }) => path)
        .sort(),
      Object.keys(scaling).sort(),
    );
    model.savePretrained(join(copy, "model"));
    assert.deepEqual(
      withoutDigests(readFileSync(join(copy, "model/adapter_model.safetensors"))),
      new Uint8Array(readFileSync(join(directory, "adapter_model.safetensors"))),
    );
    assert.equal(
      readFileSync(join(copy, "model/adapter_config.json"), "utf8"),
      asOurs(readFileSync(join(directory, "adapter_config.json"), "utf8")),
    );
    model.dispose();
  });
}

test.run();
