/** What one kind of model differs in from another, as loading and planning ask for it; families.ts is the table. */
import type { CausalLM } from "./causal_lm.js";

/** What every configuration says. */
export interface FamilyConfig {
  /** transformers' model_type. */
  readonly modelType: string;
  /** Number of token ids. */
  vocabSize: number;
  /** Number of layers. */
  numHiddenLayers: number;
  /** Whether the embedding table is the head too. */
  tieWordEmbeddings: boolean;
  /** Begins a text; null: the model has none. */
  bosTokenId: number | null;
  /** Ends a text, each of several; null: the model has none. */
  eosTokenId: number | readonly number[] | null;
}

/** A dimension of a tensor: the key of config.json that says it, and what it says. */
export type Dimension = readonly [key: string, size: number];

/** A family of models: a file of this folder, and a line in the table. */
export interface Family<Config extends FamilyConfig, Model extends CausalLM> {
  /** config.json's model_type. */
  readonly modelType: Config["modelType"];
  /**
   * Reads config.json strictly.
   * @param name of the file, for errors
   * @throws FormatError naming the key that is wrong or asks for what is not supported
   */
  parseConfig(json: unknown, name: string): Config;
  /** The module of a configuration, with its initial weights. */
  create(config: Config): Model;
  /** What every key but the head's begins with; a file of the model without its head has names without it. */
  readonly prefix: string;
  /** Key of the embedding table. */
  readonly table: string;
  /** Key of the head where it has a weight of its own. */
  readonly head: string;
  /** What the keys of layers begin with, before the layer's number. */
  readonly layers: string;
  /** The key of config.json that says how many layers there are. */
  readonly layerCount: string;
  /** Whether a file's tensor is a buffer that is computed anyway. */
  isBuffer(name: string): boolean;
  /** Every key with its shape. It is compared with the file before anything is built. */
  shapes(config: Config): Iterable<readonly [key: string, shape: readonly Dimension[]]>;
}
