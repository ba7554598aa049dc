/**
 * wasm-lora finetune: what it writes and prints, that a seed decides every bit, and that a run which
 * was stopped or killed goes on to the bits of an uninterrupted one.
 */
import assert from "node:assert/strict";
import { appendFileSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite, test } from "uvu";
import { parseSafetensors, serializeSafetensors, toFloat32, type TensorToWrite } from "../../src/io/safetensors.js";
import {
  appears,
  filesBelow,
  finetuneWith,
  refuse,
  succeed,
  temporaryFolder,
  TINY,
  wasmLora,
  writeText,
  BASE_MODEL,
  type Outcome,
} from "../support/cli.js";

const folder = temporaryFolder();
const at = (...path: string[]): string => join(folder, ...path);
const bytes = (...path: string[]): Buffer => readFileSync(at(...path));
const adapterOf = (out: string): Buffer => bytes(out, "adapter", "adapter_model.safetensors");
const finetune = finetuneWith("--data", "text.txt", ...TINY);

writeText(at("text.txt"));

const aRun = suite("a run");

const first: Outcome = await succeed(folder, finetune("first"));

aRun("writes an adapter, figures, a loss curve, a page and a checkpoint, and nothing else", () => {
  assert.deepEqual(filesBelow(at("first")), [
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "checkpoint.safetensors",
    "loss.svg",
    "metrics.jsonl",
    "report.html",
    "result.json",
  ]);
});

aRun("the adapter's keys and shapes are PEFT's", () => {
  const { metadata, tensors } = parseSafetensors(adapterOf("first"));
  assert.deepEqual([metadata["format"], Object.keys(metadata).sort()], ["pt", ["config", "digest", "format"]]);
  const c = JSON.parse(readFileSync(join(BASE_MODEL, "config.json"), "utf8"));
  const query = c.num_attention_heads * c.head_dim;
  const keyValue = c.num_key_value_heads * c.head_dim;
  const sizes: Record<string, [number, number]> = {
    "self_attn.q_proj": [c.hidden_size, query],
    "self_attn.k_proj": [c.hidden_size, keyValue],
    "self_attn.v_proj": [c.hidden_size, keyValue],
    "self_attn.o_proj": [query, c.hidden_size],
    "mlp.gate_proj": [c.hidden_size, c.intermediate_size],
    "mlp.up_proj": [c.hidden_size, c.intermediate_size],
    "mlp.down_proj": [c.intermediate_size, c.hidden_size],
  };
  const expected = new Map<string, string>();
  for (let layer = 0; layer < c.num_hidden_layers; layer++) {
    for (const [name, [inFeatures, outFeatures]] of Object.entries(sizes)) {
      const stem = `base_model.model.model.layers.${layer}.${name}`;
      expected.set(`${stem}.lora_A.weight`, `F32 2,${inFeatures}`);
      expected.set(`${stem}.lora_B.weight`, `F32 ${outFeatures},2`);
    }
  }
  assert.deepEqual(
    new Map([...tensors].map(([key, t]) => [key, `${t.dtype} ${t.shape.join()}`]).sort() as [string, string][]),
    new Map([...expected].sort()),
  );
  for (const t of tensors.values()) {
    const values = toFloat32(t);
    assert.ok(values.every(Number.isFinite) && values.some((v) => v !== 0), `${t.name} must be trained`);
  }
});

aRun("the adapter's config is what PEFT's LoraConfig.save_pretrained writes", () => {
  const config = JSON.parse(bytes("first", "adapter", "adapter_config.json").toString());
  assert.deepEqual(config, {
    alora_invocation_tokens: null,
    alpha_pattern: {},
    arrow_config: null,
    auto_mapping: null,
    base_model_name_or_path: BASE_MODEL,
    bias: "none",
    corda_config: null,
    ensure_weight_tying: false,
    eva_config: null,
    exclude_modules: null,
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    kasa_config: null,
    layer_replication: null,
    layers_pattern: null,
    layers_to_transform: null,
    loftq_config: {},
    lora_alpha: 16,
    lora_bias: false,
    lora_dropout: 0,
    lora_ga_config: null,
    megatron_config: null,
    megatron_core: "megatron.core",
    modules_to_save: null,
    monteclora_config: null,
    peft_type: "LORA",
    peft_version: "0.21.0",
    qalora_group_size: 16,
    r: 2,
    rank_pattern: {},
    revision: null,
    target_modules: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    target_parameters: null,
    task_type: "CAUSAL_LM",
    trainable_token_indices: null,
    use_bdlora: null,
    use_dora: false,
    use_qalora: false,
    use_rslora: false,
    velora_config: null,
  });
  assert.deepEqual(Object.keys(config), Object.keys(config).sort());
});

aRun("result.json holds the settings, each step's loss and both held-out losses", () => {
  const result = JSON.parse(bytes("first", "result.json").toString());
  assert.deepEqual(result.settings, {
    r: 2,
    alpha: 16,
    dropout: 0,
    model: BASE_MODEL,
    data: "text.txt",
    init: "default",
    dora: false,
    rslora: false,
    steps: 6,
    batch: 2,
    accumulation: 1,
    seq: 32,
    lr: "auto",
    schedule: "cosine",
    warmup: 0.05,
    weightDecay: 0,
    maxGradNorm: 1,
    evalEvery: 0,
    patience: 0,
    minDelta: 0,
    seed: 0,
    testWindows: "auto",
    prompt: "The whale",
    checkpointEvery: 50,
    targetModules: "all-linear",
  });
  // Below 10 M weights.
  assert.equal(result.learningRate, 5e-3);
  assert.deepEqual([result.best, result.stoppedEarly], [null, false]);
  assert.deepEqual(result.evaluations, [
    { step: 0, loss: result.heldOutBefore },
    { step: 6, loss: result.heldOutAfter },
  ]);
  assert.equal(result.losses.length, 6);
  // ln(1024) = 6.9 is a uniform guess over the vocabulary.
  for (const loss of [...result.losses, result.heldOutBefore, result.heldOutAfter])
    assert.ok(loss > 0 && loss < 10, `loss ${loss}`);
  assert.notEqual(result.heldOutAfter, result.heldOutBefore);
});

aRun("metrics.jsonl holds an object for each step and each evaluation, in their order", () => {
  const lines = bytes("first", "metrics.jsonl").toString().split("\n");
  assert.equal(lines.pop(), "");
  const objects = lines.map((line) => JSON.parse(line));
  const { losses, heldOutBefore, heldOutAfter } = JSON.parse(bytes("first", "result.json").toString());
  assert.deepEqual(objects.at(0), { step: 0, evalLoss: heldOutBefore });
  assert.deepEqual(objects.at(-1), { step: 6, evalLoss: heldOutAfter });
  const steps = objects.slice(1, -1);
  assert.deepEqual(
    steps.map(({ step, epoch, loss, tokens, scored }) => [step, epoch, loss, tokens, scored]),
    losses.map((loss: number, i: number) => [i + 1, null, loss, 64, 64]),
  );
  for (const { gradNorm, learningRate } of steps) assert.ok(gradNorm > 0 && learningRate > 0 && learningRate <= 5e-3);
});

aRun("prints the share of weights trained, perplexity and samples before and after, and how to go on", () => {
  const { heldOutBefore, heldOutAfter } = JSON.parse(bytes("first", "result.json").toString());
  const { stdout } = first;
  const [, trained, share] = /: [\d,]+ weights frozen, ([\d,]+) trained \((\d+\.\d\d) %\), r = 2/.exec(stdout) ?? [];
  const size = [...parseSafetensors(adapterOf("first")).tensors.values()].reduce((n, t) => n + t.bytes.length / 4, 0);
  assert.equal(trained, size.toLocaleString("en-US"));
  assert.ok(Number(share) > 0 && Number(share) < 100);
  assert.ok(stdout.includes(`Held-out perplexity before: ${Math.exp(heldOutBefore).toFixed(2)}\n`), stdout);
  assert.ok(
    stdout.includes(
      `Held-out perplexity after: ${Math.exp(heldOutAfter).toFixed(2)} (before: ` +
        `${Math.exp(heldOutBefore).toFixed(2)}; `,
    ),
    stdout,
  );
  assert.match(stdout, /^Sample before: "The whale.+"$/m);
  assert.match(stdout, /^Sample after: "The whale.+"$/m);
  assert.match(stdout, /^Try it: .* generate .*--adapter first\/adapter/m);
});

aRun("loss.svg is well-formed XML with the held-out losses", () => {
  const svg = bytes("first", "loss.svg").toString();
  const { heldOutBefore, heldOutAfter } = JSON.parse(bytes("first", "result.json").toString());
  const texts = checkXml(svg);
  assert.ok(texts.includes(`held out before: ${heldOutBefore.toFixed(3)}`), texts.join("|"));
  assert.ok(texts.includes(`held out after: ${heldOutAfter.toFixed(3)}`), texts.join("|"));
  assert.doesNotMatch(svg, /NaN|Infinity|undefined|null/);
});

aRun("the same seed gives the same bytes, another seed others", async () => {
  await succeed(folder, finetune("same"));
  await succeed(folder, finetune("other", "--seed", "1"));
  for (const file of filesBelow(at("first"))) assert.deepEqual(bytes("same", file), bytes("first", file), file);
  assert.notDeepEqual(adapterOf("other"), adapterOf("first"));
});

aRun("dropout counts, and repeats with its seed", async () => {
  await succeed(folder, finetune("dropout", "--dropout", "0.1"));
  await succeed(folder, finetune("dropout-same", "--dropout", "0.1"));
  assert.deepEqual(adapterOf("dropout-same"), adapterOf("dropout"));
  assert.notDeepEqual(adapterOf("dropout"), adapterOf("first"));
});

aRun("the memory planned is the memory taken; checkpoints take less and give the same bytes", async () => {
  const checkpoints = await succeed(folder, finetune("checkpoints", "--gradient-checkpointing"));
  for (const file of filesBelow(at("first"))) assert.deepEqual(bytes("checkpoints", file), bytes("first", file), file);
  const peaks = [first, checkpoints].map(({ stdout, stderr }) => {
    const [, planned] = /^Memory: (\d+\.\d) MB at the peak, as planned \(weights/m.exec(stdout) ?? [];
    assert.equal(/ 6\/6 .* peak (\d+\.\d) MB/.exec(stderr)?.[1], planned);
    return Number(planned);
  });
  assert.ok(peaks[1]! < peaks[0]!, peaks.join());
});

aRun("only the modules asked for are trained", async () => {
  await succeed(folder, finetune("two", "--target-modules", "q_proj, v_proj"));
  const names = [...parseSafetensors(adapterOf("two")).tensors.keys()];
  assert.ok(names.length > 0 && names.every((name) => /\.(q|v)_proj\.lora_[AB]\.weight$/.test(name)), names.join());
});

aRun("does not start over a run that is there", async () => {
  const was = bytes("first", "checkpoint.safetensors");
  await refuse(folder, finetune("first"), "FileError", "first/checkpoint.safetensors", "--resume");
  assert.deepEqual(bytes("first", "checkpoint.safetensors"), was);
});

aRun("--resume of a finished run gives its results again", async () => {
  cpSync(at("first"), at("finished"), { recursive: true });
  await succeed(folder, ["finetune", "--data", "text.txt", "--out", "finished", "--resume"]);
  for (const file of filesBelow(at("first"))) assert.deepEqual(bytes("finished", file), bytes("first", file), file);
});
aRun.run();

for (const dropout of ["0", "0.1"]) {
  const goingOn = suite(`going on after an interruption, dropout ${dropout}`);

  // Steps enough that a signal sent at the first checkpoint comes long before the end.
  const options = ["--steps", "20", "--checkpoint-every", "2", "--dropout", dropout];
  const name = (run: string): string => `${run}-${dropout}`;
  await succeed(folder, finetune(name("whole"), ...options));

  for (const signal of ["SIGINT", "SIGKILL"] as const) {
    goingOn(`${signal}, then --resume: the bits of an uninterrupted run`, async () => {
      const out = name(signal);
      const checkpoint = at(out, "checkpoint.safetensors");
      const stopped = await wasmLora(folder, finetune(out, ...options), async (child) => {
        await appears(child, checkpoint);
        child.kill(signal);
      });
      assert.ok(!existsSync(at(out, "result.json")), "the signal came too late to test anything");
      const done = parseSafetensors(readFileSync(checkpoint)).tensors.get("metrics")!.shape[0]!;
      assert.ok(done > 0 && done < 20, `checkpoint after ${done} steps`);
      if (signal === "SIGKILL") {
        assert.equal(stopped.signal, "SIGKILL");
        assert.equal(done % 2, 0);
      } else {
        assert.equal(stopped.code, 130, stopped.stderr);
        assert.match(
          stopped.stderr,
          new RegExp(
            `^Stopped after step ${done}; go on with: .* finetune --data text.txt --out ${out} --resume$`,
            "m",
          ),
        );
        assert.deepEqual(filesBelow(at(out)), [
          "checkpoint.previous.safetensors",
          "checkpoint.safetensors",
          "metrics.jsonl",
        ]);
      }

      const { stdout } = await succeed(folder, ["finetune", "--data", "text.txt", "--out", out, "--resume"]);
      assert.match(stdout, new RegExp(`^Resuming after step ${done} of 20$`, "m"));
      assert.deepEqual(adapterOf(out), adapterOf(name("whole")));
      for (const file of ["result.json", "metrics.jsonl", "report.html", "loss.svg"])
        assert.deepEqual(bytes(out, file), bytes(name("whole"), file), file);
    });
  }
  goingOn.run();
}

const resumeRefuses = suite("--resume refuses");

const resume = finetuneWith("--data", "text.txt", "--resume");
await succeed(folder, finetune("source", "--steps", "2"));
const checkpoint = bytes("source", "checkpoint.safetensors");
/** A run whose checkpoint holds these bytes. */
const runWith = (out: string, contents: Uint8Array): string => {
  mkdirSync(at(out));
  writeFileSync(at(out, "checkpoint.safetensors"), contents);
  return out;
};
/** Refused, and left as it was. */
const refuseFile = async (out: string, contents: Uint8Array, ...mentions: string[]): Promise<void> => {
  await refuse(folder, resume(runWith(out, contents)), "FormatError", `${out}/checkpoint.safetensors`, ...mentions);
  assert.deepEqual(filesBelow(at(out)), ["checkpoint.safetensors"]);
  assert.deepEqual(bytes(out, "checkpoint.safetensors"), Buffer.from(contents));
};
/** The checkpoint with something changed. */
const changed = (
  change: (tensors: TensorToWrite[], metadata: Record<string, string>) => TensorToWrite[] | void,
): Uint8Array => {
  const { metadata, tensors } = parseSafetensors(checkpoint);
  const list = [...tensors.values()].map((t) => ({ name: t.name, dtype: t.dtype, shape: t.shape, data: t.bytes }));
  return serializeSafetensors(change(list, metadata) ?? list, metadata);
};

resumeRefuses("an option that differs from the checkpoint's", async () => {
  for (const [option, value, key] of [
    ["--lr", "0.001", "lr"],
    ["--seed", "5", "seed"],
    ["--steps", "9", "steps"],
    ["--r", "4", "r"],
    ["--target-modules", "q_proj", "targetModules"],
    ["--dropout", "0.5", "dropout"],
  ] as const) {
    await refuse(folder, resume("source", option, value), "ArgumentError", `${key} = `, value);
  }
  assert.deepEqual(bytes("source", "checkpoint.safetensors"), checkpoint);
});

resumeRefuses("a folder without a checkpoint", async () => {
  await refuse(folder, resume("nowhere"), "FileError", "nowhere/checkpoint.safetensors");
  assert.ok(!existsSync(at("nowhere")));
});

resumeRefuses("a checkpoint cut short anywhere", async () => {
  for (const length of [0, 5, 8, 1000, Math.floor(checkpoint.length / 2), checkpoint.length - 1]) {
    await refuseFile(`cut-${length}`, checkpoint.subarray(0, length));
  }
});

resumeRefuses("a checkpoint with bytes behind its end", async () => {
  const out = runWith("longer", checkpoint);
  appendFileSync(at(out, "checkpoint.safetensors"), "x");
  await refuse(folder, resume(out), "FormatError", "longer/checkpoint.safetensors");
});

resumeRefuses("a damaged header", async () => {
  const damaged = Buffer.from(checkpoint);
  damaged[20] = 0xff;
  await refuseFile("header", damaged);
});

resumeRefuses("another kind of file", async () => {
  await refuseFile("adapter-as-checkpoint", adapterOf("source"), "pt");
  await refuseFile("text-as-checkpoint", Buffer.from("Call me Ishmael."));
});

resumeRefuses("settings that are not JSON, or absent", async () => {
  await refuseFile(
    "run-garbage",
    changed((_, metadata) => {
      metadata["run"] = "{";
    }),
  );
  await refuseFile(
    "run-absent",
    changed((_, metadata) => {
      delete metadata["run"];
    }),
  );
  await refuseFile(
    "run-null",
    changed((_, metadata) => {
      metadata["run"] = "null";
    }),
  );
});

resumeRefuses("factors or moments that are missing", async () => {
  for (const kind of ["factors", "optimizer"]) {
    await refuseFile(
      `without-${kind}`,
      changed((tensors) => {
        tensors.splice(
          tensors.findIndex((t) => t.name.startsWith(`${kind}.`)),
          1,
        );
      }),
    );
  }
});

resumeRefuses("metrics of fewer steps than were taken", async () => {
  await refuseFile(
    "metrics",
    changed((tensors) =>
      tensors.map((t) =>
        t.name === "metrics"
          ? { ...t, shape: [1, t.shape[1]!], data: (t.data as Uint8Array).subarray(0, 8 * t.shape[1]!) }
          : t,
      ),
    ),
  );
});
resumeRefuses.run();

/** Tags match, nothing is left open, entities are XML's own. Returns the texts. */
function checkXml(xml: string): string[] {
  const open: string[] = [];
  const texts: string[] = [];
  let roots = 0;
  for (const [token, close, tag, attributes, empty] of xml.matchAll(
    /<(\/?)([\w:-]+)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>|[^<]+|</g,
  )) {
    if (tag === undefined) {
      assert.ok(token !== "<", "a stray < or a malformed tag");
      if (open.length === 0) assert.equal(token.trim(), "", "text outside of the root");
      assert.doesNotMatch(token, /&(?!(amp|lt|gt|quot|apos|#\d+);)|>/);
      if (token.trim()) texts.push(token);
    } else if (close) {
      assert.equal(open.pop(), tag);
    } else {
      assert.doesNotMatch(attributes!, /&(?!(amp|lt|gt|quot|apos|#\d+);)/);
      const names = [...attributes!.matchAll(/([\w:-]+)=/g)].map((m) => m[1]);
      assert.equal(new Set(names).size, names.length, `an attribute of ${tag} occurs twice`);
      if (open.length === 0) roots++;
      if (!empty) open.push(tag);
    }
  }
  assert.deepEqual(open, []);
  assert.equal(roots, 1);
  return texts;
}

test.run();
