/** SmolLM3 (Bakouch et al. 2025): a Llama some of whose layers are told no positions. */
import { show } from "../../io/json.js";
import { GatedMLP } from "../parts/gated_mlp.js";
import { SelfAttention } from "../parts/heads.js";
import {
  headsOf,
  llamaLike,
  LlamaLikeModel,
  PreNormLayer,
  readLlamaLike,
  readOptionalWindows,
  rotaryOf,
  windowOf,
  type LlamaLikeConfig,
  type Windows,
} from "./llama_like.js";

/** What config.json says of a SmolLM3. */
export interface SmolLM3Config extends LlamaLikeConfig, Windows {
  /** transformers' model_type. */
  modelType: "smollm3";
  /** Of each layer: 1 if it is told positions (no_rope_layers). Left out: as noRopeLayerInterval says. */
  noRopeLayers?: readonly number[] | undefined;
  /** Each so-manyth layer is told none (no_rope_layer_interval). */
  noRopeLayerInterval: number;
  /** Whether the attention's projections have biases (attention_bias). */
  attentionBias: boolean;
  /** Whether the MLP's have (mlp_bias). */
  mlpBias: boolean;
}

/** What the table of families holds. Source: transformers, models/smollm3. @internal */
export const smollm3 = llamaLike<SmolLM3Config>({
  modelType: "smollm3",
  name: "SmolLM3",
  read: (reader) => {
    const { config, count, fail, flag, only } = reader;
    only("hidden_act", "silu");
    const shared = readLlamaLike(reader, {
      hiddenSize: 2048,
      intermediateSize: 11008,
      numHiddenLayers: 36,
      numAttentionHeads: 16,
      numKeyValueHeads: 4,
      vocabSize: 128256,
      maxPositionEmbeddings: 32768,
      rmsNormEps: 1e-6,
      ropeTheta: 2000000,
      tieWordEmbeddings: true,
      bosTokenId: 128000,
      eosTokenId: 128001,
    });
    const layers = shared.numHiddenLayers;
    const list = config["no_rope_layers"];
    const isList = Array.isArray(list) && list.length === layers && list.every((one) => one === 0 || one === 1);
    if (list != null && !isList) fail(`no_rope_layers is ${show(list)}; expected 0 or 1 for each of ${layers} layers`);
    return {
      ...shared,
      ...readOptionalWindows(reader, layers),
      modelType: "smollm3",
      ...(isList ? { noRopeLayers: list as number[] } : {}),
      noRopeLayerInterval: count("no_rope_layer_interval", 4),
      attentionBias: flag("attention_bias", false),
      mlpBias: flag("mlp_bias", false),
    };
  },
  base: (c) => {
    const rotary = rotaryOf(c);
    const isTold = (i: number): boolean =>
      c.noRopeLayers ? c.noRopeLayers[i] === 1 : (i + 1) % c.noRopeLayerInterval !== 0;
    return new LlamaLikeModel(c, {
      rotaries: [rotary],
      window: (i) => windowOf(c, i, !isTold(i)),
      layer: (i, window, kind) => {
        const heads = headsOf(c, i, isTold(kind) ? rotary : null);
        const attention = new SelfAttention({ ...heads, window, bias: c.attentionBias });
        return new PreNormLayer(c, attention, new GatedMLP(c, { bias: c.mlpBias }));
      },
    });
  },
});
