/** What one kind of model differs in from another, as loading and planning ask for it; families.ts is the table. */
import type { Module } from "../../nn/module.js";
import type { StoredAs } from "./stored.js";

/** What every configuration says. */
export interface FamilyConfig {
  /** transformers' model_type. */
  readonly modelType: string;
  /** Number of layers. */
  numHiddenLayers: number;
  /**
   * What matrices are stored as in memory: of a model that `loadModel` gives, what its files have, or what they were
   * quantised to; one name, or each by its key where they differ. Default: float32, as of every model that is made new.
   */
  dtype?: StoredAs | undefined;
}

/**
 * What a model gives: "causal-lm" the logits of the next token, "sequence-classification" those of a text's classes,
 * "image-classification" those of an image's, "none" the states of the last layer, as the base model has them.
 */
export type Head = "causal-lm" | "sequence-classification" | "image-classification" | "none";

/** A size that config.json says: its key, or how it follows from keys, and what it is. */
export type Size = readonly [key: string, size: number];

/** A family's model under one head. */
export interface HeadOf<Config> {
  /** transformers' classes, as config.json names them in architectures. */
  readonly architectures: readonly string[];
  /** What the keys of the head's own parameters begin with. */
  readonly keys: readonly string[];
  /** What keys begin with that a file may have and this head has no use for. */
  readonly unused?: readonly string[] | undefined;
  /**
   * The module of a configuration, with its initial weights.
   * @param has whether there are weights whose keys begin so, for what a model may lack. Left out: there are.
   */
  create(config: Config, has?: (start: string) => boolean): Module;
  /**
   * Standard deviation of the initial weights of a head that the weights lack and that is asked for all the same. Left
   * out: the weights must have it.
   */
  std?(config: Config): number;
}

/** A family of models: a file of this folder, and a line in the table. */
export interface Family<Config extends FamilyConfig> {
  /** config.json's model_type. */
  readonly modelType: string;
  /**
   * Reads config.json strictly.
   * @param name of the file, for errors
   * @throws FormatError naming the key that is wrong or asks for what is not supported
   */
  parseConfig(json: unknown, name: string): Config;
  /** What it may give. The first is that of a config.json that names no architecture. */
  readonly heads: { readonly [H in Head]?: HeadOf<Config> };
  /** What every key of the base model begins with where there is a head. Files may have the names without it. */
  readonly prefix: string;
  /** What the keys of layers begin with in the base model, before the layer's number. */
  readonly layers: string;
  /** The key of config.json that says how many layers there are. */
  readonly layerCount: string;
  /** Keys of the embedding table and of the head that it may be too. Left out: they are never one. */
  readonly tied?: { readonly table: string; readonly head: string };
  /** What the keys of heads that files may have begin with: they are left out where another head is asked for. */
  readonly headKeys: readonly string[];
  /** Whether a file's tensor is a buffer that is computed anyway. */
  isBuffer(name: string): boolean;
  /** Today's name of a tensor that older files call otherwise; null: it is left out. */
  rename?(name: string): string | null;
  /** The name that transformers' files have for a key of the model. Left out: the key. */
  fileName?(key: string): string;
  /** Of folders that hold more than is taken out of them. Left out: they do not. */
  readonly taken?: {
    /** What is left out. */
    readonly without: string;
    /** The config.json of what is taken, out of that of the folder. */
    configOf(json: Readonly<Record<string, unknown>>, head: Head): Record<string, unknown>;
  };
  /** The sizes of tensors, for an error that says which key of config.json is wrong. */
  sizes(config: Config): readonly Size[];
}
