/**
 * Adapter files under random contents: what is saved is loaded, saving what was loaded gives the same bytes, the two
 * sides refuse the same things, and no input leads to anything but a value or a typed error. (Single safetensors files:
 * test/unit/io/safetensors.test.ts.)
 */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import fc from "fast-check";
import { loadLoralib, type LoralibState, saveLoralib } from "../../src/io/loralib/state.js";
import { type LoraConfig, parsePeftConfig, serializePeftConfig } from "../../src/io/peft/config.js";
import { readPeftAdapter, writePeftAdapter } from "../../src/io/peft/folder.js";
import { baseKey, magnitudeKey } from "../../src/io/peft/keys.js";
import { peftEmbeddingKey, peftKey } from "../support/peft_keys.js";
import type { StateEntry } from "../../src/runtime/state_entry.js";
import { serializeSafetensors } from "../../src/io/safetensors.js";
import { ArgumentError, FormatError } from "../../src/runtime/errors.js";
import { matcher, patternValue, targets } from "../support/peft_rules.js";

const folder = mkdtempSync(join(tmpdir(), "io-"));
test.after(() => rmSync(folder, { recursive: true }));
const [first, second] = [join(folder, "first"), join(folder, "second")];

const LIMITS = { interruptAfterTimeLimit: 4000, markInterruptAsFailure: false };
const FILES = ["adapter_config.json", "adapter_model.safetensors"];

/** Not -0, which JSON.stringify writes as 0. */
/** What float32 holds as a finite number. */
const number = fc.double({ min: -3e38, max: 3e38, noNaN: true }).map((x) => x + 0);
const text = fc.string({ unit: "grapheme" });
const names = fc.array(text, { maxLength: 3 });
const regex = fc.constantFrom(
  "q_proj",
  ".*\\.(q|v)_proj",
  "h\\.\\d+\\..*",
  "[]x]+",
  "(?!lm_).*",
  "layers.1.q",
  "^a\\.b",
  "h|layers",
  ".*é.*",
);
const pattern = fc.oneof(
  regex,
  text.map((literal) => literal.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")),
);
const size = fc.integer({ min: 1, max: 3 });
const path = fc
  .array(fc.constantFrom("model", "layers", "h", "0", "1", "q_proj", "wte", "é", "a b"), { minLength: 1, maxLength: 4 })
  .map((parts) => parts.join("."));

const config: fc.Arbitrary<Partial<LoraConfig>> = fc
  .record({
    r: size,
    loraAlpha: number,
    loraDropout: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    excludeModules: fc.oneof(names, pattern, fc.constant(null)),
    alphaPattern: fc.dictionary(pattern, number, { maxKeys: 3, noNullPrototype: true }),
    fanInFanOut: fc.boolean(),
    useRslora: fc.boolean(),
    useDora: fc.boolean(),
    initLoraWeights: fc.constantFrom<LoraConfig["initLoraWeights"][]>(true, false, "gaussian", "orthogonal"),
    baseModelNameOrPath: fc.option(text),
    taskType: fc.option(text),
  })
  .chain((common) =>
    fc.oneof(
      pattern.map((targetModules) => ({ ...common, targetModules })),
      fc.constant({ ...common, targetModules: "all-linear" }),
      names.map((targetModules) => ({ ...common, targetModules })),
      fc
        .tuple(
          names,
          fc.oneof(fc.integer({ min: 1, max: 9 }), fc.array(fc.nat(9), { minLength: 1, maxLength: 3 })),
          fc.oneof(pattern, fc.array(pattern, { maxLength: 2 }), fc.constant(null)),
        )
        .map(([targetModules, layersToTransform, layersPattern]) => ({
          ...common,
          targetModules,
          layersToTransform,
          layersPattern,
        })),
    ),
  );

/** Bit patterns of finite values: nothing else is written. */
const values = (shape: readonly number[], seed: number): Float32Array =>
  new Float32Array(
    Uint32Array.from(
      { length: shape.reduce((a, b) => a * b, 1) },
      (_, i) => Math.imul(seed + i, 0x9e3779b1) & 0xbfffffff,
    ).buffer,
  );

type Module = {
  kind: "linear" | "embedding" | "conv";
  path: string;
  r: number;
  groups: number;
  wide: number;
  out: number;
  kernel: number[];
  hasBias: boolean;
};
const module: fc.Arbitrary<Module> = fc
  .record({
    kind: fc.constantFrom("linear" as const, "embedding" as const, "conv" as const),
    path,
    r: size,
    groups: size,
    wide: size,
    out: size,
    kernel: fc.array(size, { minLength: 1, maxLength: 3 }),
    hasBias: fc.boolean(),
  })
  .map((m) => ({ ...m, r: m.r * m.groups }));

/** An adapter with a rank pattern for every module, and its tensors. */
function adapterOf(
  common: Partial<LoraConfig>,
  modules: Module[],
  saved: string[],
): { config: Partial<LoraConfig>; tensors: ({ name: string } & StateEntry)[] } {
  const tensors: ({ name: string } & StateEntry)[] = [];
  const add = (name: string, ...shape: number[]): void => {
    tensors.push({ name, shape, data: values(shape, tensors.length * 7919) });
  };
  const rankPattern: Record<string, number> = {};
  for (const { kind, path, r, groups, wide, out, kernel, hasBias } of modules) {
    rankPattern[`^${path.replaceAll(".", "\\.")}`] = r;
    const ones = kernel.map(() => 1);
    if (kind === "embedding") {
      add(peftEmbeddingKey(path, "lora_embedding_A"), r, wide);
      add(peftEmbeddingKey(path, "lora_embedding_B"), out, r);
    } else {
      add(peftKey(path, "lora_A"), r, wide, ...(kind === "conv" ? kernel : []));
      add(peftKey(path, "lora_B"), out, ...(kind === "conv" ? [r / groups, ...ones] : [r]));
      if (hasBias) add(baseKey(`${path}.base_layer.bias`), out);
    }
    if (common.useDora) add(magnitudeKey(path), ...(kind === "conv" ? [1, out, ...ones] : [out]));
  }
  for (const name of saved) add(baseKey(`${name}.weight`), 2, 1);
  return {
    config: {
      ...common,
      rankPattern,
      bias: modules.some((m) => m.hasBias) ? "lora_only" : "none",
      modulesToSave: saved.length > 0 ? saved : null,
    },
    tensors,
  };
}

test("property: PEFT folders of random configs and shapes", () => {
  const adapter = fc
    .tuple(
      config,
      fc.uniqueArray(module, { maxLength: 4, selector: (m) => m.path }),
      fc.uniqueArray(fc.constantFrom("score", "head", "classifier")),
    )
    .map(([common, modules, saved]) => adapterOf(common, modules, saved));
  fc.assert(
    fc.property(adapter, ({ config, tensors }) => {
      writePeftAdapter(first, config, tensors);
      const back = readPeftAdapter(first);
      for (const [key, value] of Object.entries(config))
        assert.deepEqual(back.config[key as keyof LoraConfig], value, key);
      assert.deepEqual(Object.keys(back.config.rankPattern), Object.keys(config.rankPattern!));
      assert.equal(back.tensors.size, tensors.length);
      for (const { name, shape, data } of tensors) {
        const read = back.tensors.get(name)!;
        assert.deepEqual([read.shape, new Uint32Array(read.data.buffer)], [shape, new Uint32Array(data.buffer)], name);
      }
      writePeftAdapter(
        second,
        back.config,
        [...back.tensors].reverse().map(([name, tensor]) => ({ name, ...tensor })),
      );
      for (const file of FILES)
        assert.deepEqual(readFileSync(join(second, file)), readFileSync(join(first, file)), file);
    }),
    { numRuns: 100, ...LIMITS },
  );
});

test("property: loralib files", () => {
  const entry = fc.tuple(fc.option(path, { nil: "" }), size, size, size, size, fc.boolean());
  fc.assert(
    fc.property(fc.uniqueArray(entry, { maxLength: 4, selector: ([module]) => module }), (entries) => {
      const state: LoralibState = new Map();
      const add = (key: string, ...shape: number[]): unknown =>
        state.set(key, { shape, data: values(shape, state.size * 7919) });
      for (const [module, r, blocks, wide, out, hasBias] of entries) {
        const stem = module === "" ? "" : `${module}.`;
        add(`${stem}lora_A`, r * blocks, wide);
        add(`${stem}lora_B`, out * blocks, r);
        if (hasBias) add(`${stem}bias`, out);
      }
      saveLoralib(first + ".safetensors", state);
      const back = loadLoralib(first + ".safetensors");
      assert.equal(back.size, state.size);
      for (const [key, { shape, data }] of state) {
        assert.deepEqual(
          [back.get(key)!.shape, new Uint32Array(back.get(key)!.data.buffer)],
          [shape, new Uint32Array(data.buffer)],
          key,
        );
      }
      saveLoralib(second + ".safetensors", new Map([...back].reverse()));
      assert.deepEqual(readFileSync(second + ".safetensors"), readFileSync(first + ".safetensors"));
    }),
    { numRuns: 100, ...LIMITS },
  );
});

/** The result, or undefined for an error of the kind; any other error passes. */
function attempt<T>(run: () => T, kind: typeof FormatError | typeof ArgumentError): T | undefined {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof kind)) throw error;
    return undefined;
  }
}

const KEYS = Object.keys(JSON.parse(serializePeftConfig({})) as object);
const hostile = fc.oneof(
  fc.jsonValue(),
  fc
    .tuple(
      fc.dictionary(
        fc.constantFrom(...KEYS),
        fc.oneof(
          fc.jsonValue(),
          fc.constantFrom(
            null,
            true,
            false,
            0,
            1,
            -0,
            [0],
            ["q_proj"],
            "all-linear",
            {},
            { q: 4 },
            { "a)|(b": 1 },
            { __proto__x: 1 },
          ),
          fc.string(),
        ),
        { maxKeys: 5 },
      ),
      fc.constantFrom<object[]>(
        {},
        { peft_type: "LORA" },
        { peft_type: "LORA", target_modules: ["q_proj"] },
        { peft_type: "LORA", target_modules: ".*q" },
      ),
    )
    .map(([random, plausible]) => ({ ...random, ...plausible })),
);

test("fuzz: any JSON is a config or a FormatError, and a config is one that can be used and written", () => {
  let configs = 0;
  fc.assert(
    fc.property(hostile, (value) => {
      const json: unknown = JSON.parse(JSON.stringify(value));
      const config = attempt(() => parsePeftConfig(json, "adapter_config.json"), FormatError);
      if (!config) return;
      configs++;
      targets(config, "model.layers.0.q_proj", true, false);
      patternValue(config.rankPattern, "model.layers.0.q_proj", config.r);
      patternValue(config.alphaPattern, "model.layers.0.q_proj", config.loraAlpha);
      const written = serializePeftConfig(config);
      assert.equal(serializePeftConfig(parsePeftConfig(JSON.parse(written), "adapter_config.json")), written);
    }),
    { numRuns: 5000, ...LIMITS },
  );
  assert.ok(configs > 100, `only ${configs} were configs`);
});

test("fuzz: nesting of any depth is a FormatError", () => {
  for (const nested of ["[".repeat(50_000) + "]".repeat(50_000), '{"a":'.repeat(50_000) + "1" + "}".repeat(50_000)]) {
    for (const key of [...KEYS, "unknown"]) {
      const text = `{"target_modules": [], ${key === "peft_type" ? "" : '"peft_type": "LORA", '}"${key}": ${nested}}`;
      attempt(() => parsePeftConfig(JSON.parse(text), "adapter_config.json"), FormatError);
    }
  }
});

test("fuzz: a random pattern is a matcher or an ArgumentError", () => {
  const piece = fc.constantFrom(
    "(",
    ")",
    "[",
    "]",
    "^",
    "?",
    "*",
    "+",
    "{",
    "}",
    "2",
    ",",
    "\\",
    "|",
    ".",
    "$",
    "-",
    "a",
    "d",
    "P",
    "<",
    ">",
    "=",
    "!",
    ":",
    "é",
    "😀",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 10 }), (pieces) => {
      attempt(() => matcher(pieces.join(""))("a.b"), ArgumentError);
    }),
    { numRuns: 5000, ...LIMITS },
  );
});

test("fuzz: what one side refuses the other refuses", () => {
  const part = fc.constantFrom(
    "base_model.model.",
    "base_model.model.q",
    "base_model.model.score",
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_embedding_A",
    ".lora_embedding_B",
    ".lora_magnitude_vector",
    ".base_layer.bias",
    ".bias",
    ".weight",
    ".lora_B.bias",
    ".x",
    "lora_A",
    "lora_B",
    "",
  );
  const tensor = fc
    .tuple(fc.array(part, { minLength: 1, maxLength: 3 }), fc.array(fc.nat(2), { maxLength: 4 }))
    .map(([parts, shape]) => ({ name: parts.join(""), shape, data: values(shape, 1) }));
  const tensors = fc.uniqueArray(tensor, { maxLength: 3, selector: ({ name }) => name });
  const settings = fc.record({
    r: size,
    targetModules: fc.constant(["q"]),
    useDora: fc.boolean(),
    bias: fc.constantFrom("none" as const, "all" as const, "lora_only" as const),
    modulesToSave: fc.option(fc.constant(["score"])),
    rankPattern: fc.constantFrom<Record<string, number>>({}, { q: 1 }),
  });
  fc.assert(
    fc.property(settings, tensors, (config, list) => {
      rmSync(first, { recursive: true, force: true });
      const wrote =
        attempt(() => {
          writePeftAdapter(first, config, list);
          return true;
        }, ArgumentError) ?? false;
      assert.equal(existsSync(first), wrote);
      writePeftAdapter(second, config, []);
      writeFileSync(
        join(second, FILES[1]!),
        serializeSafetensors(
          list.map((one) => ({ ...one, dtype: "F32" })),
          { format: "pt" },
        ),
      );
      assert.equal(attempt(() => readPeftAdapter(second), FormatError) !== undefined, wrote);

      const state: LoralibState = new Map(list.map(({ name, ...rest }) => [name, rest]));
      const file = first + ".safetensors";
      rmSync(file, { force: true });
      const saved =
        attempt(() => {
          saveLoralib(file, state);
          return true;
        }, ArgumentError) ?? false;
      assert.equal(existsSync(file), saved);
      assert.equal(attempt(() => loadLoralib(join(second, FILES[1]!)), FormatError) !== undefined, saved);
    }),
    { numRuns: 200, ...LIMITS },
  );
});

test.run();
