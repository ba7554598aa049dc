/**
 * Models whose weights stay of 16 bits as their files have them: every number is that of the same values stored as
 * float32, in every family there is a folder of, and the matrices take half the memory.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "uvu";
import { full, init, io, memoryStats, models, noGrad, scope, tensor, train, type Tensor } from "../../../src/index.js";
import { familyCases, familyPath } from "../../support/families.js";
import { assertBits } from "../../support/golden.js";

await init();
/** In memory the fixtures may be, too: only what a test wrote is taken away. */
const written = new Set<string>();
function put(path: string, bytes: Uint8Array): void {
  written.add(path);
  io.memoryFiles.set(path, bytes);
}
function takeAway(): void {
  for (const path of written) io.memoryFiles.delete(path);
  written.clear();
}
test.after(takeAway);

type Json = Record<string, any>;
const read = (folder: string, file: string): Uint8Array => readFileSync(familyPath(`${folder}/${file}`));
const configOf = (folder: string): Json => JSON.parse(new TextDecoder().decode(read(folder, "config.json")));

/** The upper 16 bits of float16's and float32's fields alike: sign, exponent, what is left of the mantissa. */
function cut(values: Float32Array, dtype: "BF16" | "F16"): Uint8Array {
  const bits = new Uint32Array(values.slice().buffer);
  const halves = Uint16Array.from(bits, (x) => {
    if (dtype === "BF16") return x >>> 16;
    const exponent = ((x >>> 23) & 0xff) - 112;
    return exponent <= 0 ? 0 : ((x >>> 16) & 0x8000) | (exponent << 10) | ((x >>> 13) & 0x3ff);
  });
  return new Uint8Array(halves.buffer);
}

/** Writes a folder's weights in 16 bits, and the same values as float32. */
function write(folder: string, dtype: "BF16" | "F16"): { half: string; float32: string } {
  const tensors = [...io.parseSafetensors(read(folder, "model.safetensors")).tensors.values()].map((view) => {
    const data = cut(io.toFloat32(view), dtype);
    return { name: view.name, dtype, shape: view.shape, data };
  });
  const widened = tensors.map(({ data, ...tensor }) => ({
    ...tensor,
    dtype: "F32" as const,
    data: io.toFloat32({ ...tensor, bytes: data }),
  }));
  const paths = { half: `memory:${folder}-${dtype}`, float32: `memory:${folder}-${dtype}-float32` };
  for (const path of Object.values(paths)) put(`${path}/config.json`, read(folder, "config.json"));
  put(`${paths.half}/model.safetensors`, io.serializeSafetensors(tensors));
  put(`${paths.float32}/model.safetensors`, io.serializeSafetensors(widened));
  return paths;
}

type Loaded = { head: string; model: any; config: Json };
/** What a model gives, and of a language model the losses of steps, with its matrices' gradients left out. */
function numbersOf({ head, model, config }: Loaded, json: Json): Float32Array[] {
  if (head === "causal-lm") {
    const tokens = Int32Array.from({ length: 200 }, (_, i) => (i * i + 3 * i) % json["vocab_size"]);
    const run = new train.Finetuning(model, tokens, { steps: 3, batch: 2, seq: 8, adapter: { r: 2 } });
    const before = run.evaluate();
    while (!run.isComplete) run.step();
    const numbers = Float32Array.of(before, ...run.losses, run.evaluate());
    run.dispose();
    return [numbers];
  }
  const input = (): Tensor =>
    head === "image-classification"
      ? full([1, json["num_channels"], json["image_size"], json["image_size"]], 0.3)
      : tensor(
          Int32Array.from({ length: 12 }, (_, i) => 5 + ((7 * i) % (config["vocabSize"] - 5))),
          [2, 6],
        );
  return [noGrad(() => scope(() => model.forward(input()).data.slice()))];
}

for (const folder of familyCases())
  for (const dtype of ["BF16", "F16"] as const)
    test(`${folder} in ${dtype}`, () => {
      const json = configOf(folder);
      const paths = write(folder, dtype);
      const start = memoryStats().liveBytes;
      const half = models.loadModel(paths.half) as unknown as Loaded;
      const halfBytes = memoryStats().liveBytes - start;
      const float32 = models.loadModel(paths.float32) as unknown as Loaded;
      const floatBytes = memoryStats().liveBytes - start - halfBytes;
      assert.equal(half.config["dtype"], dtype === "BF16" ? "bfloat16" : "float16");
      assert.equal(float32.config["dtype"], undefined);
      let matrices = 0;
      for (const [key, p] of half.model.namedParameters()) {
        assert.equal(p.dtype, p.rank === 2 ? half.config["dtype"] : "float32", key);
        if (p.rank === 2) matrices += p.size;
      }
      // But for the rounding up to whole blocks.
      assert.ok(Math.abs(floatBytes - halfBytes - 2 * matrices) <= 64 * memoryStats().blocks);
      const [mine, theirs] = [numbersOf(half, json), numbersOf(float32, json)];
      mine.forEach((values, i) => assertBits(`${folder}, result ${i}`, values, theirs[i]!));
      half.model.dispose();
      float32.model.dispose();
      takeAway();
    });

test("a file of several kinds becomes float32, and so does a model that is made by a half one's configuration", () => {
  const paths = write("gpt2", "BF16");
  const { tensors } = io.parseSafetensors(io.memoryFiles.get(`${paths.half}/model.safetensors`)!);
  const mixed = [...tensors.values()].map(({ bytes, ...tensor }) =>
    tensor.name.includes("c_attn.weight")
      ? { ...tensor, dtype: "F32" as const, data: io.toFloat32({ ...tensor, bytes }) }
      : { ...tensor, data: bytes },
  );
  const { model: half } = models.loadModel(paths.half);
  put(`${paths.half}/model.safetensors`, io.serializeSafetensors(mixed));
  const { model: float32, config } = models.loadModel(paths.half);
  assert.equal(config.dtype, undefined);
  for (const [key, p] of float32.namedParameters()) assertBits(key, p.data, half.stateDict().get(key)!.data);
  const made = new models.Gpt2(half.config as models.Gpt2Config);
  assert.equal(made.config.dtype, "float32");
  assert.throws(() => new models.Gpt2({ ...made.config, dtype: "int8" as never }), /dtype must be one of float32, bf/);
  for (const model of [half, float32, made]) model.dispose();
});

test.run();
