/**
 * Adapters of a LoraModel from and to PEFT's folders (io/peft/contents.ts has the format).
 *
 * An adapter whose init took s B0 A0 out of the base weight (pissa, olora) is written as the difference from
 * the base as it was: s (B A - B0 A0) = s [B, -B0] [A; A0], a plain LoRA of twice the rank.
 */
import type { LoraConfig } from "../io/peft/config.js";
import { readPeftAdapter, writePeftAdapter } from "../io/peft/folder.js";
import {
  biasKey,
  factorKeys,
  magnitudeShape,
  peftBaseKey,
  peftMagnitudeKey,
  type NamedPeftTensor,
} from "../io/peft/keys.js";
import { show } from "../io/json.js";
import type { Parameter } from "../nn/module.js";
import { FormatError } from "../runtime/errors.js";
import type { StateEntry } from "../runtime/state_entry.js";
import type { Adapter } from "./layer.js";
import type { LoraModel, Source } from "./model.js";

export function saveAdapter(model: LoraModel, directory: string, adapterName: string): void {
  const config = model.config(adapterName);
  const layers = model.layers(adapterName);
  const converted = layers.some(({ layer }) => layer.adapters.get(adapterName)!.initial);
  const tensors: NamedPeftTensor[] = layers.flatMap(({ path, layer }) => {
    const adapter = layer.adapters.get(adapterName)!;
    const [a, b] = factorKeys(path, layer.factorNames);
    const { loraA, loraB } = converted
      ? difference(adapter)
      : { loraA: entry(adapter.loraA), loraB: entry(adapter.loraB) };
    const factors = [
      { name: a, ...loraA },
      { name: b, ...loraB },
    ];
    if (!adapter.magnitude) return factors;
    return [
      ...factors,
      {
        name: peftMagnitudeKey(path),
        shape: magnitudeShape(adapter.magnitude.size, layer.weight.rank),
        data: adapter.magnitude.data.slice(),
      },
    ];
  });
  for (const { path, module } of model.copies(adapterName)) {
    for (const [name, p] of module.ownParameters()) tensors.push({ name: peftBaseKey(`${path}.${name}`), ...entry(p) });
  }
  const adapted = layers.map(({ path }) => path);
  for (const [path, p] of model.biases(config, adapted))
    tensors.push({ name: biasKey(path, adapted.includes(path)), ...entry(p) });
  writePeftAdapter(directory, converted ? doubled(config) : config, tensors);
}

export function loadAdapter(model: LoraModel, directory: string, adapterName: string): void {
  const { config, tensors } = readPeftAdapter(directory);
  model.inject("loadAdapter", adapterName, config, fromTensors(model, config, tensors, directory));
}

export function hotswapAdapter(model: LoraModel, directory: string, adapterName: string): void {
  const { config, tensors } = readPeftAdapter(directory);
  model.replace("hotswapAdapter", adapterName, config, fromTensors(model, config, tensors, directory));
}

/** Every tensor of the folder must be used, and every parameter found. */
function fromTensors(
  model: LoraModel,
  config: LoraConfig,
  tensors: ReadonlyMap<string, StateEntry>,
  directory: string,
): Source {
  const unused = new Set(tensors.keys());
  const find = (name: string, shape: readonly number[]): Float32Array => {
    const tensor = tensors.get(name);
    if (!tensor) throw new FormatError(`${directory}: tensor ${name} is missing; the model needs it.${asked(config)}`);
    if (tensor.shape.join() !== shape.join()) {
      throw new FormatError(
        `${directory}: tensor ${name} has shape [${tensor.shape}]; the model needs [${shape}].${asked(config)}`,
      );
    }
    unused.delete(name);
    return tensor.data;
  };
  const set = (parameter: Parameter, name: string, shape = parameter.shape): void => {
    parameter.set(find(name, shape));
  };
  const seen = new Map<Parameter, string>();
  return {
    factors({ path, layer }, loraA, loraB) {
      const [a, b] = factorKeys(path, layer.factorNames);
      const base = peftBaseKey(`${path}.base_layer.weight`);
      set(loraA, a);
      set(loraB, b);
      if (tensors.has(base) && !sameValues(find(base, layer.weight.shape), layer.unmergedData(layer.weight))) {
        throw new FormatError(
          `${directory}: tensor ${base} differs from the model's own weight: the adapter belongs to another ` +
            `base.${asked(config)}`,
        );
      }
    },
    magnitude({ path, layer }, magnitude) {
      set(magnitude, peftMagnitudeKey(path), magnitudeShape(magnitude.size, layer.weight.rank));
    },
    copy(path, module) {
      for (const [name, p] of module.ownParameters()) {
        const key = peftBaseKey(`${path}.${name}`);
        const twin = seen.get(p);
        if (twin !== undefined && !sameValues(find(key, p.shape), p.data)) {
          throw new FormatError(
            `${directory}: tensors ${twin} and ${key} differ, but ensure_weight_tying is true: they must be one ` +
              `weight.`,
          );
        }
        set(p, key);
        seen.set(p, key);
      }
    },
    ready(parts) {
      const adapted = parts.map(({ path }) => path);
      // These are the base's own: all must be there before one of them is changed.
      const biases = [...model.biases(config, adapted)].map(
        ([path, p]) => [p, find(biasKey(path, adapted.includes(path)), p.shape)] as const,
      );
      const [stray] = unused;
      if (stray !== undefined)
        throw new FormatError(`${directory}: tensor ${stray} fits nothing in the model.${asked(config)}`);
      for (const [p, values] of biases) p.set(values);
    },
  };
}

/** What to do about an adapter that does not fit. */
function asked({ baseModelNameOrPath: name }: LoraConfig): string {
  return name ? ` The adapter was made for ${show(name)}: load that base.` : "";
}

function sameValues(a: Float32Array, b: Float32Array): boolean {
  return a.every((v, i) => Object.is(v, b[i]));
}

function entry(p: Parameter): StateEntry {
  return { shape: p.shape, data: p.data.slice() };
}

/** [A; A0] and [B, -B0]; zeros for A0 and B0 in a layer whose weight was not changed. */
function difference({ loraA, loraB, r, initial }: Adapter): { loraA: StateEntry; loraB: StateEntry } {
  const rows = new Float32Array(2 * loraA.size);
  rows.set(loraA.data);
  if (initial) rows.set(initial.loraA, loraA.size);
  const outputs = loraB.shape[0]!;
  const columns = new Float32Array(2 * loraB.size);
  for (let i = 0; i < outputs; i++) {
    columns.set(loraB.data.subarray(i * r, (i + 1) * r), i * 2 * r);
    if (initial)
      columns.set(
        initial.loraB.subarray(i * r, (i + 1) * r).map((b) => -b),
        (i * 2 + 1) * r,
      );
  }
  return {
    loraA: { shape: [2 * r, ...loraA.shape.slice(1)], data: rows },
    loraB: { shape: [outputs, 2 * r], data: columns },
  };
}

/** Twice the rank at the same scaling: alpha / r or alpha / sqrt(r). */
function doubled(config: LoraConfig): LoraConfig {
  const factor = config.useRslora ? Math.SQRT2 : 2;
  const times = (pattern: Readonly<Record<string, number>>, by: number): Record<string, number> =>
    Object.fromEntries(Object.entries(pattern).map(([key, value]) => [key, value * by]));
  return {
    ...config,
    r: 2 * config.r,
    loraAlpha: config.loraAlpha * factor,
    initLoraWeights: true,
    rankPattern: times(config.rankPattern, 2),
    alphaPattern: times(config.alphaPattern, factor),
  };
}
