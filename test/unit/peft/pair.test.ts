/** An adapter's two files belong together: of one save, undamaged, finite; other writers' folders have no digests. */
import assert from "node:assert/strict";
import { test } from "uvu";
import { ArgumentError, FormatError, init, io, memoryStats, nn, peft } from "../../../src/index.js";
import { stream } from "../../support/random.js";

await init();
class Model extends nn.Module {
  fc = new nn.Linear(4, 3);
  norm = new nn.LayerNorm(3);
  head = new nn.Linear(3, 2);
}
const CONFIG = "adapter_config.json";
const TENSORS = "adapter_model.safetensors";
const bytesOf = (path: string): Uint8Array => io.memoryFiles.get(path)!.slice();
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const bytes = (s: string): Uint8Array => new TextEncoder().encode(s);
function save(folder: string, config: object, fill: number): void {
  const adapted = peft.getLoraModel(new Model(), { r: 2, targetModules: ["fc"], modulesToSave: ["norm"], ...config });
  for (const p of adapted.parameters()) if (p.requiresGrad) p.data.fill(fill);
  adapted.savePretrained(folder);
  adapted.dispose();
}
const read = (folder: string): number => peft.readPeftAdapter(folder).tensors.size;
function damaged(what: string, files: Record<string, Uint8Array>, word = ""): void {
  for (const [file, content] of Object.entries(files)) io.memoryFiles.set(`memory:damaged/${file}`, content);
  assert.throws(
    () => read("memory:damaged"),
    (e: Error) => e instanceof FormatError && e.message.includes(word),
    what,
  );
}

test("files of two saves are refused, whichever of the two was replaced and whatever differs", () => {
  save("memory:one", {}, 0.5);
  assert.equal(read("memory:one"), 4);
  for (const [what, config] of Object.entries({
    "other values": {},
    alpha: { loraAlpha: 64 },
    rslora: { useRslora: true },
    "a pattern": { alphaPattern: { fc: 3 } },
    dropout: { loraDropout: 0.5 },
    names: { targetModules: ["fc"], modulesToSave: ["norm"], excludeModules: ["head"] },
  })) {
    save("memory:two", config, 0.25);
    const [one, two] = ["memory:one", "memory:two"].map((folder) => ({
      config: bytesOf(`${folder}/${CONFIG}`),
      tensors: bytesOf(`${folder}/${TENSORS}`),
    })) as unknown as [Record<string, Uint8Array>, Record<string, Uint8Array>];
    if (what === "other values") continue;
    damaged(`${what}: new tensors`, { [CONFIG]: one["config"]!, [TENSORS]: two["tensors"]! }, "one of the two");
    damaged(`${what}: new config`, { [CONFIG]: two["config"]!, [TENSORS]: one["tensors"]! }, "one of the two");
  }
});

test("a save that stops between its writes leaves the old adapter or a refusal", () => {
  for (let stop = 0; stop < 4; stop++) {
    save("memory:over", { loraAlpha: 4 }, 1);
    const set = io.memoryFiles.set.bind(io.memoryFiles);
    let writes = 0;
    io.memoryFiles.set = (path, content) => {
      if (writes++ === stop) throw new Error("killed");
      return set(path, content);
    };
    try {
      save("memory:over", { loraAlpha: 64 }, 2);
    } catch {
      /* It was killed. */
    }
    io.memoryFiles.set = set;
    let got: string;
    try {
      const { config, tensors } = peft.readPeftAdapter("memory:over");
      got = `${config.loraAlpha} ${[...tensors.values()][0]!.data[0]}`;
    } catch (error) {
      assert.ok(error instanceof FormatError);
      got = "refused";
    }
    assert.ok(["4 1", "64 2", "refused"].includes(got), `${stop}: ${got}`);
  }
});

test("every flipped bit of the tensors' file is noticed, and of the config's what changes the adapter", () => {
  save("memory:flip", { loraAlpha: 3 }, 0.5);
  const config = bytesOf(`memory:flip/${CONFIG}`);
  const tensors = bytesOf(`memory:flip/${TENSORS}`);
  const random = stream(9);
  for (let at = 0; at < tensors.length; at++) {
    const flipped = tensors.slice();
    flipped[at]! ^= 1 << Math.floor(random() * 8);
    damaged(`byte ${at} of the tensors`, { [CONFIG]: config, [TENSORS]: flipped });
  }
  io.memoryFiles.set(`memory:damaged/${TENSORS}`, tensors);
  const whole = peft.readPeftAdapter("memory:flip");
  for (let at = 0; at < config.length; at++) {
    const flipped = config.slice();
    flipped[at]! ^= 1 << Math.floor(random() * 7);
    io.memoryFiles.set(`memory:damaged/${CONFIG}`, flipped);
    try {
      const {
        baseModelNameOrPath: _,
        taskType: __,
        initLoraWeights: ___,
        ...said
      } = peft.readPeftAdapter("memory:damaged").config;
      assert.deepEqual(
        said,
        Object.fromEntries(Object.entries(whole.config).filter(([key]) => key in said)),
        `byte ${at} of the config`,
      );
    } catch (error) {
      assert.ok(error instanceof FormatError, String(error));
    }
  }
});

test("where the base lies may be written anew, and white space and the order of fields may change", () => {
  save("memory:moved", {}, 0.5);
  const json = JSON.parse(text(bytesOf(`memory:moved/${CONFIG}`))) as Record<string, unknown>;
  const moved = {
    inference_mode: false,
    peft_version: "0.21.0",
    ...Object.fromEntries(Object.entries(json).reverse()),
    base_model_name_or_path: "elsewhere",
  };
  io.memoryFiles.set(`memory:moved/${CONFIG}`, bytes(JSON.stringify(moved)));
  assert.equal(peft.readPeftAdapter("memory:moved").config.baseModelNameOrPath, "elsewhere");
  io.memoryFiles.set(`memory:moved/${CONFIG}`, bytes(JSON.stringify({ ...moved, lora_alpha: 16 })));
  assert.throws(() => read("memory:moved"), FormatError);
});

test("other writers' folders have no digests; half of them is damage", () => {
  save("memory:foreign", {}, 0.5);
  const { metadata, tensors } = io.parseSafetensors(bytesOf(`memory:foreign/${TENSORS}`));
  const list = [...tensors.values()].map(({ bytes: data, ...tensor }) => ({ ...tensor, data }));
  assert.deepEqual(
    Object.entries(metadata)
      .map(([key, value]) => [key, key === "format" ? value : /^[0-9a-f]{64}$/.test(value)])
      .sort(),
    [
      ["config", true],
      ["digest", true],
      ["format", "pt"],
    ],
  );
  for (const foreign of [{}, { format: "pt" }, { format: "pt", note: "x" }] as Record<string, string>[]) {
    io.memoryFiles.set(`memory:foreign/${TENSORS}`, io.serializeSafetensors(list, foreign));
    assert.equal(read("memory:foreign"), 4);
  }
  const config = bytesOf(`memory:foreign/${CONFIG}`);
  for (const half of [{ config: metadata["config"]! }, { digest: metadata["digest"]! }] as Record<string, string>[])
    damaged("half", { [CONFIG]: config, [TENSORS]: io.serializeSafetensors(list, { format: "pt", ...half }) });
});

test("what is not finite is neither written nor read, by name; the folder stays as it was", () => {
  for (const bad of [NaN, Infinity, -Infinity])
    for (const which of ["lora_A", "lora_B", "lora_magnitude_vector", "modules_to_save"]) {
      const adapted = peft.getLoraModel(new Model(), {
        r: 2,
        targetModules: ["fc"],
        useDora: true,
        modulesToSave: ["head"],
      });
      adapted.savePretrained("memory:finite");
      const before = [CONFIG, TENSORS].map((file) => bytesOf(`memory:finite/${file}`));
      const [, parameter] = [...adapted.namedParameters()].find(([key]) => key.includes(which))!;
      parameter.data[1] = bad;
      assert.throws(
        () => adapted.savePretrained("memory:finite"),
        (e: Error) => e instanceof ArgumentError && e.message.includes(String(bad)) && e.message.includes("position 1"),
      );
      assert.deepEqual(
        [CONFIG, TENSORS].map((file) => bytesOf(`memory:finite/${file}`)),
        before,
      );
      const { tensors } = io.parseSafetensors(before[1]!);
      const key = [...tensors.keys()].find((name) =>
        name.includes(which === "modules_to_save" ? "head.weight" : which),
      )!;
      const list = [...tensors.values()].map((t) => ({
        name: t.name,
        dtype: "F32" as const,
        shape: t.shape,
        data: io.toFloat32(t),
      }));
      list.find(({ name }) => name === key)!.data[1] = bad;
      io.memoryFiles.set("memory:nan/adapter_config.json", before[0]!);
      io.memoryFiles.set("memory:nan/adapter_model.safetensors", io.serializeSafetensors(list, { format: "pt" }));
      const plain = new Model();
      const held = memoryStats().liveBytes;
      for (const load of [
        () => peft.readPeftAdapter("memory:nan"),
        () => peft.LoraModel.fromPretrained(plain, "memory:nan"),
        () => adapted.loadAdapter("memory:nan", "b"),
        () => adapted.hotswapAdapter("memory:nan", "default"),
      ]) {
        assert.throws(
          load,
          (e: Error) =>
            e instanceof FormatError && e.message.includes(key) && e.message.includes(`holds ${bad} at position 1`),
        );
      }
      assert.deepEqual([adapted.adapters, memoryStats().liveBytes - held], [["default"], 0]);
      plain.dispose();
      adapted.dispose();
    }
});

test("an alpha beyond float32 is refused when read, too", () => {
  save("memory:alpha", {}, 0.5);
  const json = JSON.parse(text(bytesOf(`memory:alpha/${CONFIG}`))) as Record<string, unknown>;
  for (const change of [{ lora_alpha: 1e300 }, { lora_alpha: 3.5e38 }, { alpha_pattern: { fc: -1e39 } }]) {
    io.memoryFiles.set(`memory:alpha/${CONFIG}`, bytes(JSON.stringify({ ...json, ...change })));
    assert.throws(
      () => read("memory:alpha"),
      (e: Error) =>
        e instanceof FormatError && e.message.includes(Object.keys(change)[0]!) && e.message.includes("float32"),
    );
  }
});

test.run();
