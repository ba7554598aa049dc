/**
 * PEFT's adapter folders on small models: what is taken must run, be written and be read again the same; whatever
 * comes, the base keeps its weights and its memory.
 */
import { io, manualSeed, models, nn, noGrad, ops, peft, scope, tensor, type Tensor } from "../../../src/index.js";
import { damage, damageText, textOf, treeOf } from "../json_tree.js";
import type { Random } from "../random.js";
import { must, type Files, type Target } from "../target.js";
import { damageWeights, encode, fileOf, FOLDER, withFiles, type Weight } from "../weights.js";

/** An embedding, a stored-transposed linear layer, a convolution, a norm and a head. */
class Net extends nn.Module {
  readonly embed: nn.Layer = new nn.Embedding(8, 4);
  readonly layers: nn.Layer[] = [new nn.Linear(4, 4, { fanInFanOut: true }), new nn.Linear(4, 4)];
  readonly norm: nn.Layer = new nn.LayerNorm(4);
  readonly conv: nn.Layer = new nn.Conv1d(2, 2, 3, { padding: 1 });
  readonly head: nn.Layer = new nn.Linear(4, 3);

  forward(ids: Tensor): Tensor {
    const n = ids.size;
    let x = this.embed.forward(ids);
    for (const layer of this.layers) x = layer.forward(x);
    return this.head.forward(this.conv.forward(ops.reshape(this.norm.forward(x), [n / 2, 2, 4])));
  }

  getOutputEmbeddings(): nn.Module {
    return this.head;
  }
}

const CONFIGS: Record<"net" | "llama", Partial<peft.LoraConfig>[]> = {
  net: [
    { r: 2, targetModules: ["embed", "layers.0", "layers.1", "conv", "head"] },
    { r: 2, targetModules: ["layers.0", "layers.1", "conv", "head"], useDora: true, loraAlpha: 3 },
    { r: 2, targetModules: ["layers.1"], bias: "all", modulesToSave: ["norm"] },
    { r: 2, targetModules: ["embed", "conv"], rankPattern: { conv: 1 }, alphaPattern: { "em.*": 7 } },
    { r: 1, targetModules: ".*(layers\\.[01]|head)", bias: "lora_only", useRslora: true },
    { r: 2, targetModules: "all-linear", excludeModules: ["layers.0"] },
    { r: 2, targetModules: ["layers.0", "conv"], loraBias: true },
    { r: 2, targetParameters: ["layers.1.weight", "head.weight"], rankPattern: { "head.weight": 1 } },
    { r: 2, targetModules: ["head"], trainableTokenIndices: { embed: [0, 3] } },
  ],
  llama: [
    { r: 2, targetModules: ["q_proj", "v_proj"], loraDropout: 0.1 },
    { r: 2, targetModules: "all-linear" },
    { r: 2, targetModules: ["up_proj"], layersToTransform: [1], layersPattern: "layers" },
    {
      r: 2,
      targetModules: ["k_proj", "embed_tokens"],
      modulesToSave: ["lm_head"],
      rankPattern: { "layers.0.*k_proj": 3 },
    },
    { r: 2, targetModules: ["q_proj"], trainableTokenIndices: [1, 5] },
    { r: 2, targetModules: ["q_proj"], trainableTokenIndices: { embed_tokens: [2], lm_head: [7, 0] }, loraBias: true },
    {
      r: 2,
      targetModules: ["v_proj"],
      layerReplication: [
        [0, 2],
        [1, 2],
      ],
    },
  ],
};
const WORDS = [
  '"LORA"',
  '"q_proj"',
  '"conv"',
  '"head"',
  '"embed"',
  '"layers.0"',
  '"all-linear"',
  '"ALL-LINEAR"',
  '"lora_only"',
  '"gaussian"',
  '"pissa"',
  '"olora"',
  '"(.+)+x"',
  '"(.*)*x"',
  '".*.*.*.*x"',
  '"([a-z_0-9]+\\\\.?)+x"',
  '"(a|a)*b"',
  '"["',
  '"("',
  '"*"',
  '"a{1000}{1000}"',
  '"a{0,99999}b"',
  '"(?=.*)x"',
  '"\\\\"',
  '"rank_pattern"',
  '"alpha_pattern"',
  '"modules_to_save"',
  '"use_dora"',
  '"fan_in_fan_out"',
  '"layers_pattern"',
  '"target_parameters"',
  '"lora_bias"',
  '"layer_replication"',
  '"trainable_token_indices"',
  '"layers.1.weight"',
  "[[0,1],[0,2]]",
  "[[0,1000000000]]",
  '{"head":[0]}',
  '"exclude_modules"',
  '{"q_proj":2}',
  '{".*":1}',
  '{"(.+)+x":2}',
  '["lm_head"]',
  '["embed_tokens","lm_head"]',
  "[0]",
  "[1]",
  "[9]",
  '"ensure_weight_tying"',
];

interface Base {
  model: nn.Module & { forward(ids: Tensor): Tensor };
  adapters: { config: object; weights: Weight[] }[];
  bits: Uint8Array;
}
let bases: Base[] | undefined;

function outputs(model: Base["model"]): Float32Array {
  return noGrad(() => scope(() => model.forward(tensor(Int32Array.of(0, 1, 2, 3), [2, 2])).data.slice()));
}

/** Of all but biases: with bias "all" or "lora_only" those are the adapter's, as in PEFT, and stay. */
function bitsOf(model: nn.Module): Uint8Array {
  return Buffer.concat(
    [...model.namedParameters()]
      .filter(([key]) => !key.endsWith("bias"))
      .map(([, p]) => Buffer.from(p.data.slice().buffer)),
  );
}

function made(): Base[] {
  manualSeed(1);
  const net = new Net();
  const llama = new models.Llama({
    modelType: "llama",
    vocabSize: 8,
    hiddenSize: 4,
    intermediateSize: 6,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    numKeyValueHeads: 1,
    headDim: 2,
    maxPositionEmbeddings: 8,
    rmsNormEps: 0.01,
    ropeParameters: { ropeType: "default" as const, ropeTheta: 10000 },
    tieWordEmbeddings: false,
    bosTokenId: 1,
    eosTokenId: 2,
  });
  const base = (model: Base["model"], configs: readonly Partial<peft.LoraConfig>[]): Base => ({
    model,
    bits: bitsOf(model),
    adapters: configs.map((config) => {
      const adapted = peft.getLoraModel(model, config);
      adapted.savePretrained("memory:made");
      adapted.unload();
      const { tensors } = io.parseSafetensors(io.memoryFiles.get("memory:made/adapter_model.safetensors")!);
      return {
        config: JSON.parse(new TextDecoder().decode(io.memoryFiles.get("memory:made/adapter_config.json"))) as object,
        weights: [...tensors.values()].map((t) => ({
          name: t.name,
          dtype: "F32",
          shape: t.shape,
          data: io.toFloat32(t),
        })),
      };
    }),
  });
  return [base(net, CONFIGS.net), base(llama, CONFIGS.llama)];
}

interface Input {
  base: number;
  files: Files;
}

function generate(random: Random): Input {
  bases ??= made();
  const which = random.below(bases.length);
  const { config, weights } = random.pick(bases[which]!.adapters);
  const damages = random.few(5);
  const ofConfig = random.once(2);
  const text = textOf(damage(treeOf(config), ofConfig ? damages : 0, random, WORDS));
  const tensors = damageWeights(
    weights,
    ofConfig ? 0 : damages,
    random,
    weights.map(({ name }) =>
      name.replace("lora_A", random.pick(["lora_B", "lora_embedding_A", "lora_magnitude_vector", "base_layer"])),
    ),
  );
  return {
    base: which,
    files: {
      "adapter_config.json": encode(random.once(20) ? damageText(text, random) : text),
      "adapter_model.safetensors": fileOf(tensors, random),
    },
  };
}

async function run({ base, files }: Input): Promise<void> {
  const { model, bits } = (bases ??= made())[base]!;
  try {
    await withFiles(files, () => {
      const adapted = peft.LoraModel.fromPretrained(model, FOLDER);
      try {
        adapted.eval();
        outputs(model);
        adapted.savePretrained(`${FOLDER}/again`);
        const first = peft.readPeftAdapter(FOLDER);
        const second = peft.readPeftAdapter(`${FOLDER}/again`);
        // A table's own weight may be left out of a folder, and is written where PEFT does.
        const sizeOf = ({ tensors }: typeof first): number =>
          [...tensors.keys()].filter((key) => !key.endsWith(".base_layer.weight")).length;
        must(
          sizeOf(first) === sizeOf(second),
          () => `${first.tensors.size} tensors are read, ${second.tensors.size} written`,
        );
        for (const [name, { shape, data }] of first.tensors) {
          const other = second.tensors.get(name);
          if (name.endsWith(".base_layer.weight") && other === undefined) continue;
          must(
            other !== undefined &&
              other.shape.join() === shape.join() &&
              Buffer.compare(Buffer.from(data.buffer), Buffer.from(other.data.buffer)) === 0,
            () => `tensor ${name} changed in reading and writing`,
          );
        }
      } finally {
        adapted.unload();
      }
    });
  } finally {
    must(Buffer.compare(bitsOf(model), bits) === 0, () => "the base's weights have changed");
  }
}

export const adapter: Target<Input> = {
  name: "adapter",
  inputs: 3000,
  prepare: () => {
    bases ??= made();
  },
  generate,
  run,
};
