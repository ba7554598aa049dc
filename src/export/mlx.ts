/**
 * Adapters of mlx-lm: adapters.safetensors with <module>.lora_a [in, rank] and .lora_b [rank, out], y += scale (x a) b;
 * adapter_config.json has one rank and one scale, the number of layers from the last on, and the names within a layer.
 * Source: ml-explore/mlx-lm, mlx_lm/tuner/lora.py and utils.py (load_adapters, linear_to_lora_layers).
 */
import { parseSafetensors, serializeSafetensors, toFloat32 } from "../io/safetensors.js";
import { ArgumentError, StateError } from "../runtime/errors.js";
import { atRank, atScaling, mostFrequent } from "./scaling.js";
import type { Task, Written } from "./target.js";
import { SAFETENSORS_DTYPES, toBytes, transposed } from "./values.js";

const MODEL_FILE = "adapters.safetensors";
const CONFIG_FILE = "adapter_config.json";

export function writeMlxAdapter({ where, config, updates, dtype, base }: Task): Written {
  const places = updates.map(({ path }) => {
    const [, part, layer, module] = /^model\.(language_model\.)?layers\.(\d+)\.(.+)$/.exec(path) ?? [];
    if (module === undefined)
      throw new ArgumentError(
        `${where}: the adapter is on ${path}, and mlx-lm has adapters on modules of model.layers alone.`,
      );
    // The text model of a model of texts and images.
    const start = part === undefined ? "model" : "language_model.model";
    return { layer: Number(layer), module, key: `${start}.layers.${layer}.${module}` };
  });
  const scale = mostFrequent(updates.map(({ scaling }) => scaling));
  const rank = updates.reduce((most, update) => Math.max(most, update.rank), 1);
  const tensors = updates.flatMap((update, i) => {
    const { a, b, inputs, outputs } = atRank(atScaling(update, scale), rank);
    const one = (name: string, values: Float32Array, shape: number[]) => ({
      name: `${places[i]!.key}.${name}`,
      dtype: SAFETENSORS_DTYPES[dtype],
      shape,
      data: toBytes(values, dtype),
    });
    return [
      one("lora_a", transposed(a, rank, inputs), [inputs, rank]),
      one("lora_b", transposed(b, outputs, rank), [rank, outputs]),
    ];
  });
  const first = places.reduce((least, { layer }) => Math.min(least, layer), Infinity);
  const json = {
    fine_tune_type: "lora",
    // mlx-lm counts from the last layer; -1 is all of them.
    num_layers: base && Number.isFinite(first) ? base.numHiddenLayers - first : -1,
    lora_parameters: {
      rank,
      scale,
      dropout: config.loraDropout,
      keys: [...new Set(places.map(({ module }) => module))].sort(),
    },
  };
  const bytes = serializeSafetensors(tensors, { format: "mlx" });
  return {
    files: new Map([
      [MODEL_FILE, bytes],
      [CONFIG_FILE, new TextEncoder().encode(`${JSON.stringify(json, null, 4)}\n`)],
    ]),
    readBack: () => {
      const file = parseSafetensors(bytes, { name: MODEL_FILE }).tensors;
      return updates.map(({ path }, i) => {
        const { key } = places[i]!;
        const a = file.get(`${key}.lora_a`);
        const b = file.get(`${key}.lora_b`);
        if (!a || !b) throw new StateError(`${MODEL_FILE}: the factors of ${path} were written and are not there.`);
        const [inputs, r] = a.shape as [number, number];
        const outputs = b.shape[1]!;
        return {
          path,
          rank: r,
          inputs,
          outputs,
          a: transposed(toFloat32(a), inputs, r),
          b: transposed(toFloat32(b), r, outputs),
          scaling: scale,
        };
      });
    },
    folded: updates.filter(({ scaling }) => scaling !== scale).length,
    notes: [],
  };
}
