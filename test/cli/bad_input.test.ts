/**
 * Bad input, from a mistyped option to a hostile file: one line on stderr that names the offender, a
 * non-zero exit code, and nothing written.
 */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "uvu";
import { init, models, peft } from "../../src/index.js";
import {
  BASE_MODEL,
  filesBelow,
  finetuneWith,
  refuse,
  temporaryFolder,
  TINY,
  wasmLora,
  writeText,
} from "../support/cli.js";

const folder = temporaryFolder();
const at = (...path: string[]): string => join(folder, ...path);
const finetuneTo = finetuneWith("--data", "text.txt", ...TINY);
const finetune = (...options: string[]): string[] => finetuneTo("out", ...options);

writeText(at("text.txt"));

/** Refused by finetune (generate reads a model by the same call); nothing is written. */
async function refuseModel(model: string, name: string, ...mentions: (string | RegExp)[]): Promise<void> {
  await refuse(folder, finetune("--model", model), name, ...mentions);
  assert.deepEqual(filesBelow(at("out")), []);
}
async function refuseFinetune(
  options: readonly string[],
  name: string,
  ...mentions: (string | RegExp)[]
): Promise<void> {
  await refuse(folder, finetune(...options), name, ...mentions);
  assert.deepEqual(filesBelow(at("out")), []);
}

/** A copy of the base model's folder, for damage. */
function copyModel(name: string): string {
  mkdirSync(at(name));
  for (const file of ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
    cpSync(join(BASE_MODEL, file), at(name, file));
  return name;
}
function edit(path: string, change: (json: any) => unknown): void {
  const json = JSON.parse(readFileSync(path, "utf8"));
  writeFileSync(path, JSON.stringify(change(json) ?? json));
}

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
/** Rewrites the JSON header of a safetensors file by hand, whatever the format demands. */
function editHeader(path: string, change: (header: Header) => void): void {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + length)) as Header;
  change(header);
  const text = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([size, text, file.subarray(8 + length)]));
}
const GATE = "model.layers.1.mlp.gate_proj.weight";

const commandLine = suite("the command line");

commandLine("no command, an unknown one, a missing or unknown option", async () => {
  for (const none of [[], ["--"]]) await refuse(folder, none, "error", "command");
  await refuse(folder, ["finetun"], "error", "finetun");
  await refuse(folder, ["finetune"], "error", "--data");
  await refuse(folder, ["merge", "--adapter", "a"], "error", "--out");
  await refuse(folder, ["inspect"], "error", "path");
  await refuse(folder, ["generate", "--rank", "3"], "error", "--rank");
  await refuse(folder, ["generate", "stray"], "error", "generate");
});

const bad: [option: string, values: string[]][] = [
  ["--lr", ["NaN", "-1", "abc", "Infinity", "", "1e-400", "0x1"]],
  ["--r", ["0", "1.5"]],
  ["--steps", ["0", "1e21"]],
  ["--seq", ["1"]],
  ["--dropout", ["-0.1", "1", "1.5"]],
  ["--seed", ["1e400"]],
  ["--target-modules", [","]],
];
for (const [option, values] of bad) {
  commandLine(`${option} ${values.join(", ")}`, async () => {
    for (const value of values) await refuseFinetune([`${option}=${value}`], "error", option, `"${value}"`);
  });
}

commandLine("values that only the model can judge", async () => {
  await refuseFinetune(["--target-modules", "q_proj,nonsense"], "ArgumentError", "nonsense", "q_proj");
  await refuseFinetune(["--seq", "513"], "ArgumentError", "seq = 513", "512");
});

commandLine("help fits a terminal of 80 columns", async () => {
  for (const command of ["", "inspect", "finetune", "eval", "generate", "export", "merge"]) {
    const { code, stdout } = await wasmLora(folder, command === "" ? ["--help"] : [command, "--help"]);
    assert.equal(code, 0);
    for (const line of stdout.split("\n")) assert.ok(line.length <= 80, `${command}: ${line}`);
  }
});

commandLine("on a terminal, too, the program ends, with the cursor shown", async () => {
  process.env["NODE_OPTIONS"] = "--import=data:text/javascript,process.stderr.isTTY=true";
  try {
    for (const [name, ...options] of [
      ["ArgumentError", "--seq", "513"],
      ["FileError", "--data", "nothing.txt"],
    ] as const) {
      const { code, stderr } = await wasmLora(folder, finetune(...options));
      assert.equal(code, 1, stderr);
      const [, cursor] = /.*\u001b\[\?25([hl])/s.exec(stderr) ?? [];
      assert.equal(cursor, "h", stderr);
      assert.match(stderr.slice(stderr.lastIndexOf("\u001b")), new RegExp(`${name}: [^\n]+\n$`));
    }
    // So are those who wait for a model to be read or written.
    for (const [bar, ...args] of [
      ["Weights ", "merge", "--model", BASE_MODEL, "--to", "gguf", "--out", "whole.gguf"],
      ["model.safetensors ", "merge", "--model", BASE_MODEL, "--out", "whole"],
      ["model.safetensors ", "generate", "--model", BASE_MODEL, "--prompt", "We", "--max-tokens", "1"],
    ] as const) {
      const { code, stderr, stdout } = await wasmLora(folder, args);
      assert.equal(code, 0, stderr);
      assert.ok(stderr.includes(bar), stderr);
      assert.doesNotMatch(stdout, /\u001b/);
    }
    // A log of CI, and a terminal that knows no cursor, get lines.
    for (const [name, value] of [
      ["CI", "true"],
      ["TERM", "dumb"],
    ] as const) {
      const before = process.env[name];
      process.env[name] = value;
      try {
        const { stderr } = await wasmLora(folder, finetune("--seq", "513"));
        assert.doesNotMatch(stderr, /\u001b/);
      } finally {
        if (before === undefined) delete process.env[name];
        else process.env[name] = before;
      }
    }
  } finally {
    delete process.env["NODE_OPTIONS"];
  }
});

commandLine(
  "a learning rate so large that the loss is no longer a number: what the last whole step left is kept",
  async () => {
    const { code, stderr } = await wasmLora(folder, [
      "finetune",
      "--data",
      "text.txt",
      "--out",
      "diverged",
      ...TINY,
      "--lr",
      "1e30",
    ]);
    assert.equal(code, 1, "a diverged run must fail");
    // Below the progress bar.
    const [, error] = /\nArgumentError: (finetune: the run diverged [^\n]+)\n$/.exec(stderr) ?? [];
    assert.ok(error, stderr);
    for (const part of [
      ": the loss of step 2 is NaN.",
      "What step 1 left, which is finite, is in diverged/adapter.",
      "--lr",
    ])
      assert.ok(error.includes(part), error);
    for (const { data } of peft.readPeftAdapter(at("diverged/adapter")).tensors.values())
      assert.ok(data.every(Number.isFinite));
    const lines = readFileSync(at("diverged/metrics.jsonl"), "utf8").trim().split("\n");
    assert.deepEqual(
      lines.map((line) => JSON.parse(line).step),
      [0, 1],
    );
    for (const line of lines)
      for (const value of Object.values(JSON.parse(line)))
        assert.ok(value === null ? line.includes('"epoch":null') : Number.isFinite(value));
  },
);
commandLine.run();

const dataFile = suite("data");

dataFile("missing, a folder", async () => {
  await refuse(folder, ["finetune", "--data", "nothing.txt", "--out", "out", ...TINY], "FileError", "nothing.txt");
  await refuse(folder, ["finetune", "--data", ".", "--out", "out"], "FileError", ".");
  assert.deepEqual(filesBelow(at("out")), []);
});

dataFile("not UTF-8", async () => {
  writeFileSync(at("latin1.txt"), Buffer.from("Les Mis\u00e9rables. ".repeat(500), "latin1"));
  await refuse(
    folder,
    ["finetune", "--data", "latin1.txt", "--out", "out", ...TINY],
    "FormatError",
    "latin1.txt",
    "UTF-8",
  );
  assert.deepEqual(filesBelow(at("out")), []);
});

dataFile("too short for --seq, empty", async () => {
  writeFileSync(at("short.txt"), "Call me Ishmael.");
  writeFileSync(at("empty.txt"), "");
  for (const data of ["short.txt", "empty.txt"]) {
    await refuse(folder, ["finetune", "--data", data, "--out", "out", ...TINY], "ArgumentError", data, "seq = 32");
  }
  assert.deepEqual(filesBelow(at("out")), []);
});
dataFile.run();

const modelFolder = suite("a model folder");

modelFolder("that is missing or empty", async () => {
  await refuseModel("no-model", "FileError", "no-model");
  mkdirSync(at("empty-model"));
  await refuseModel("empty-model", "FileError", "empty-model/config.json", "GGUF file");
});

modelFolder("without weights", async () => {
  rmSync(at(copyModel("no-weights"), "model.safetensors"));
  await refuseModel("no-weights", "FileError", "no-weights", "model.safetensors");
});

modelFolder("of another model type, or with a config that is none", async () => {
  const model = copyModel("other");
  const config = at(model, "config.json");
  edit(config, (json) => {
    json.model_type = "mamba";
  });
  await refuseModel(model, "FormatError", "other/config.json", "model_type", '"mamba"');
  edit(config, (json) => {
    json.model_type = "bert";
  });
  await refuseModel(model, "ArgumentError", "bert", "causal-lm");
  for (const text of ["", "{", "[]", "null", "\ufeff{}"]) {
    writeFileSync(config, text);
    await refuse(folder, ["generate", "--model", model], "FormatError", "other/config.json");
  }
});

modelFolder("whose config does not fit the weights", async () => {
  const model = copyModel("layers");
  edit(at(model, "config.json"), (json) => {
    json.num_hidden_layers = 9;
  });
  await refuseModel(model, "FormatError", "layers", "model.layers.4.");
});

modelFolder("with a tokenizer.json that is none", async () => {
  const model = copyModel("tokenizer");
  const path = at(model, "tokenizer.json");
  for (const text of [
    "",
    "garbage",
    "null",
    "[]",
    "3",
    "{}",
    '{"model":{}}',
    '{"model":{"type":"Nonsense","vocab":{}}}',
  ]) {
    writeFileSync(path, text);
    await refuse(
      folder,
      ["generate", "--model", model, "--prompt", "The sea"],
      "FormatError",
      "tokenizer/tokenizer.json",
    );
  }
  await refuse(folder, finetune("--model", model), "FormatError", "tokenizer/tokenizer.json");
  rmSync(path);
  await refuse(folder, ["generate", "--model", model], "FileError", "tokenizer/tokenizer.json");
  assert.deepEqual(filesBelow(at("out")), []);
});
modelFolder.run();

const weightsFile = suite("model.safetensors");

weightsFile("cut short anywhere", async () => {
  const model = copyModel("cut");
  const path = at(model, "model.safetensors");
  const whole = readFileSync(path);
  const dataStart = 8 + Number(whole.readBigUInt64LE(0));
  for (const length of [0, 7, 8, 100, dataStart - 1, dataStart, Math.floor(whole.length / 2), whole.length - 1]) {
    writeFileSync(path, whole.subarray(0, length));
    await refuse(folder, ["generate", "--model", model], "FormatError", "cut/model.safetensors");
  }
  await refuse(folder, ["inspect", model], "FormatError", "cut/model.safetensors");
  await refuseModel(model, "FormatError", "cut/model.safetensors");
});

weightsFile("that announces a header of more than 100 MB", async () => {
  const model = copyModel("huge");
  const path = at(model, "model.safetensors");
  const file = readFileSync(path);
  for (const length of [100_000_001n, 2n ** 53n, 2n ** 64n - 1n]) {
    file.writeBigUInt64LE(length);
    writeFileSync(path, file);
    await refuse(folder, ["inspect", path], "FormatError", "huge/model.safetensors", `${length}`);
  }
  await refuseModel(model, "FormatError", "huge/model.safetensors");
});

const damages: [what: string, change: (header: Header) => void, ...mentions: string[]][] = [
  [
    "overlapping tensors",
    (h) => {
      h[GATE]!.data_offsets[0] -= 2;
      h[GATE]!.data_offsets[1] -= 2;
    },
    GATE,
  ],
  [
    "an unknown dtype",
    (h) => {
      h[GATE]!.dtype = "BF15";
    },
    GATE,
    "BF15",
  ],
  [
    "a dtype that holds no weights",
    (h) => {
      h[GATE]!.dtype = "I16";
    },
    GATE,
    "I16",
  ],
  [
    "a missing tensor",
    (h) => {
      h["nonsense"] = h[GATE]!;
      delete h[GATE];
    },
    GATE,
    "nonsense",
  ],
  [
    "a shape of another size",
    (h) => {
      h[GATE]!.shape[0]! += 1;
    },
    GATE,
  ],
  [
    "a shape turned round",
    (h) => {
      h[GATE]!.shape.reverse();
    },
    GATE,
  ],
];
for (const [what, change, ...mentions] of damages) {
  weightsFile(`with ${what}`, async () => {
    const model = copyModel(what.replaceAll(" ", "-"));
    editHeader(at(model, "model.safetensors"), change);
    await refuseModel(model, "FormatError", ...mentions);
  });
}
weightsFile.run();

const outputFolder = suite("an output folder");

outputFolder("that is a file, below a file, or where nothing can be made", async () => {
  writeFileSync(at("file"), "kept");
  for (const out of ["file", "file/below", "/proc/nonsense/out"]) {
    await refuse(folder, ["finetune", "--data", "text.txt", "--out", out, ...TINY], "FileError", out);
    await refuse(folder, ["merge", "--adapter", await adapter(), "--out", out], "FileError", out);
  }
  assert.equal(readFileSync(at("file"), "utf8"), "kept");
});
outputFolder.run();

/**
 * An untrained adapter of rank 2 for the base model, without the digests of ours, by which any damage would be told
 * before its kind is.
 */
async function adapter(): Promise<string> {
  if (filesBelow(at("adapter")).length === 0) {
    await init();
    const { model } = models.loadModel(BASE_MODEL);
    peft.getLoraModel(model, { r: 2, loraAlpha: 4, targetModules: ["q_proj", "v_proj"] }).savePretrained(at("adapter"));
    model.dispose();
    editHeader(at("adapter/adapter_model.safetensors"), (header) => {
      (header as Record<string, unknown>)["__metadata__"] = { format: "pt" };
    });
  }
  return "adapter";
}

const adapterFolder = suite("an adapter");

const damaged = async (name: string): Promise<string> => {
  cpSync(at(await adapter()), at(name), { recursive: true });
  return name;
};
const refuseAdapter = async (path: string, name: string, ...mentions: (string | RegExp)[]): Promise<void> => {
  await refuse(folder, ["generate", "--adapter", path], name, ...mentions);
  await refuse(folder, ["merge", "--adapter", path, "--out", "merged"], name, ...mentions);
  assert.deepEqual(filesBelow(at("merged")), []);
};

adapterFolder("that is missing, or lacks a file", async () => {
  await refuseAdapter("no-adapter", "FileError", "no-adapter");
  rmSync(at(await damaged("half"), "adapter_model.safetensors"));
  await refuseAdapter("half", "FileError", "half/adapter_model.safetensors");
});

adapterFolder("of another model", async () => {
  const path = await damaged("wide");
  const factor = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
  editHeader(at(path, "adapter_model.safetensors"), (h) => {
    // 64 columns instead of 128; the other half is a tensor of its own.
    const [begin, end] = h[factor]!.data_offsets;
    const middle = (begin + end) / 2;
    h[factor]!.shape[1]! /= 2;
    h[factor]!.data_offsets = [begin, middle];
    const other = {
      A: factor.replace("layers.0", "layers.9"),
      B: factor.replace("layers.0", "layers.9").replace("lora_A", "lora_B"),
    };
    const partner = h[factor.replace("lora_A", "lora_B")]!;
    h[other.A] = { dtype: "F32", shape: [2, h[factor]!.shape[1]!], data_offsets: [middle, end] };
    h[other.B] = { dtype: "F32", shape: [0, 2], data_offsets: [partner.data_offsets[1], partner.data_offsets[1]] };
  });
  await refuseAdapter(path, "FormatError", "wide", factor, "[2,64]", "[2,128]");
  const narrow = copyModel("narrow");
  edit(at(narrow, "config.json"), (json) => {
    json.num_attention_heads = 2;
    json.num_key_value_heads = 2;
  });
  await refuse(folder, ["generate", "--model", narrow, "--adapter", await adapter()], "FormatError", "q_proj");
});

adapterFolder("with features that are not supported, or settings out of range", async () => {
  const path = await damaged("dora");
  const config = at(path, "adapter_config.json");
  const sound = readFileSync(config, "utf8");
  for (const [key, value, name, mention] of [
    ["use_dora", true, "FormatError", "lora_magnitude_vector"],
    ["lora_bias", true, "FormatError", "lora_bias"],
    ["target_parameters", ["q_proj.weight"], "ArgumentError", "targetParameters"],
    ["init_lora_weights", "corda", "FormatError", "init_lora_weights"],
    ["peft_type", "LOHA", "FormatError", "peft_type"],
    ["rank_pattern", { q_proj: 4 }, "FormatError", "q_proj.lora_A"],
    ["r", 3, "FormatError", "r = 3"],
    ["r", 0, "FormatError", "r is 0"],
    ["modules_to_save", ["norm"], "FormatError", "norm.weight"],
    ["target_modules", "all-linear", "FormatError", "k_proj.lora_A"],
    ["target_modules", ["nonsense"], "ArgumentError", "nonsense"],
  ] as const) {
    writeFileSync(config, sound);
    edit(config, (json) => {
      json[key] = value;
    });
    await refuse(folder, ["generate", "--adapter", path], name, ...(name === "FormatError" ? ["dora"] : []), mention);
  }
  writeFileSync(config, sound);
  edit(config, (json) => {
    json.lora_bias = true;
  });
  await refuseAdapter(path, "FormatError", "dora/adapter_model.safetensors", "lora_bias");
});

adapterFolder("with a value that is not finite", async () => {
  const path = await damaged("nan");
  const file = at(path, "adapter_model.safetensors");
  const contents = readFileSync(file);
  contents.fill(0xff, 8 + Number(contents.readBigUInt64LE(0)));
  writeFileSync(file, contents);
  await refuseAdapter(path, "FormatError", "nan/adapter_model.safetensors", "NaN");
});
adapterFolder.run();

test.run();
