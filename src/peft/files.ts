/** Adapters of a model from and to PEFT's folders (io/peft/contents.ts has the format). */
import type { LoraConfig } from "../io/peft/config.js";
import { readPeftAdapter, writePeftAdapter } from "../io/peft/folder.js";
import {
  baseKey,
  baseWeightKey,
  biasKey,
  factorBiasKey,
  factorKeys,
  magnitudeKey,
  magnitudeShape,
  type NamedPeftTensor,
  PREFIX,
  tokensKey,
} from "../io/peft/keys.js";
import { show } from "../io/json.js";
import type { Module, Parameter } from "../nn/module.js";
import { engine } from "../runtime/engine.js";
import { FormatError } from "../runtime/errors.js";
import type { StateEntry } from "../runtime/state_entry.js";
import type { StoredValues } from "../tensor/tensor.js";
import type { Adapters } from "./adapters.js";
import { collect } from "./collect.js";
import { LoraLinear } from "./linear.js";
import { changesBaseWeight, type Source } from "./new_adapter.js";

/** Writes an adapter as PEFT does. */
export function saveAdapter(
  adapters: Adapters,
  directory: string,
  adapterName: string,
  saveEmbeddingLayers: boolean | "auto",
): void {
  const { config, parts, copies, tokens, biases } = collect(adapters, adapterName, saveEmbeddingLayers);
  const tensors: NamedPeftTensor[] = parts.flatMap(({ path, kind, loraA, loraB, loraBias, magnitude, base }) => {
    const [a, b] = factorKeys(path, kind);
    const factors = [
      { name: a, ...loraA },
      { name: b, ...loraB },
    ];
    if (base) factors.push({ name: baseWeightKey(path), ...base });
    if (loraBias) factors.push({ name: factorBiasKey(path), shape: [loraBias.length], data: loraBias });
    if (!magnitude) return factors;
    const shape = magnitudeShape(magnitude.length, loraB.shape.length);
    return [...factors, { name: magnitudeKey(path), shape, data: magnitude }];
  });
  const adapted = new Set(parts.map(({ path }) => path));
  for (const { path, rows } of tokens) tensors.push({ name: tokensKey(path), ...rows });
  for (const { path, name, value } of copies) tensors.push({ name: baseKey(`${path}.${name}`), ...value });
  for (const { path, value } of biases) tensors.push({ name: biasKey(path, adapted.has(path)), ...value });
  writePeftAdapter(directory, config, tensors, engine().arithmetic);
}

export function loadAdapter(adapters: Adapters, directory: string, adapterName: string): void {
  const { config, tensors } = readAdapter(adapters, directory);
  adapters.inject(
    "loadAdapter",
    adapterName,
    config,
    fromTensors(adapters, adapters.names, config, tensors, directory),
  );
}

export function hotswapAdapter(adapters: Adapters, directory: string, adapterName: string): void {
  const { config, tensors } = readAdapter(adapters, directory);
  const others = adapters.names.filter((name) => name !== adapterName || adapters.changesBase(name));
  adapters.replace("hotswapAdapter", adapterName, config, fromTensors(adapters, others, config, tensors, directory));
}

/** An adapter's folder, its tensors under the keys that the model has for what files may call otherwise. */
function readAdapter({ model }: Adapters, directory: string): ReturnType<typeof readPeftAdapter> {
  const { config, tensors } = readPeftAdapter(directory);
  const { renameKey } = model as Module & { renameKey?(key: string): string };
  if (!renameKey) return { config, tensors };
  const rename = (name: string): string =>
    name.startsWith(PREFIX) ? PREFIX + renameKey.call(model, name.slice(PREFIX.length)) : name;
  const renamed = new Map(Array.from(tensors, ([name, tensor]) => [rename(name), tensor]));
  if (renamed.size < tensors.size)
    throw new FormatError(`${directory}: tensors are there twice, under the names of two releases of the model.`);
  return { config, tensors: renamed };
}

/**
 * Every tensor of the folder must be used, and every parameter found.
 * @param others adapters that the new one stands beside
 */
function fromTensors(
  adapters: Adapters,
  others: readonly string[],
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
    factors(part, factors) {
      const { path, layer, scaling } = part;
      const { loraA, loraB, loraBias } = factors;
      const [a, b] = factorKeys(path, layer.kind);
      const values = [
        find(a, loraA.shape),
        find(b, loraB.shape),
        loraBias && find(factorBiasKey(path), loraBias.shape),
      ];
      const key = baseWeightKey(path);
      const { weight } = layer;
      let before: StoredValues | null = null;
      if (tensors.has(key)) {
        // PEFT puts the folder's table over the base's own.
        const table = find(key, weight.shape);
        const isOther = !sameValues(table, weight.toFloat32());
        if (isOther && others.length > 0)
          throw new FormatError(
            `${directory}: tensor ${key} differs from the model's own weight, which ${others.join(", ")} ` +
              `${others.length === 1 ? "has" : "have"}, too; load the adapter on a model without others.`,
          );
        if (isOther) {
          before = weight.stored();
          weight.set(table);
        }
      } else if (layer instanceof LoraLinear && changesBaseWeight(config)) {
        // The init again, as PEFT does it, for what it leaves in the base; the factors are the folder's.
        before = weight.stored();
        layer.initFactors(config.initLoraWeights, `${directory}: ${path}`, factors, scaling);
      }
      for (const [i, p] of [loraA, loraB, loraBias].entries()) p?.set(values[i]!);
      return { initial: before && { weight: before, factors: null } };
    },
    magnitude({ path, layer }, magnitude) {
      set(magnitude, magnitudeKey(path), magnitudeShape(magnitude.size, layer.weight.rank));
    },
    copy(path, module) {
      for (const [name, p] of module.namedParameters()) {
        const key = baseKey(`${path}.${name}`);
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
    tokens(path, rows) {
      set(rows, tokensKey(path));
    },
    ready(parts) {
      const adapted = parts.map(({ path }) => path);
      // These are the base's own: all must be there before one of them is changed.
      const biases = [...adapters.biases(config, adapted)].map(
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
