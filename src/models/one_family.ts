/** Folders of one family each: the model has its own type, and a bundle of an app has no other family in it. */
import { gpt2, type Gpt2, type Gpt2Config } from "./families/gpt2.js";
import { llama, type Llama, type LlamaConfig } from "./families/llama.js";
import { loadFamily, type LoadedModel } from "./load.js";

/**
 * `loadModel` of a Llama with its language-model head.
 *
 * Source: transformers, LlamaForCausalLM.from_pretrained.
 * @throws FileError, FormatError naming what is missing, unknown or of another shape than config.json says
 *
 * @example
 * const { model, config } = models.loadLlama("models/base");
 * const logits = noGrad(() => model.forward(tensor(new Int32Array([5, 6, 7]), [1, 3])));
 * console.log(logits.shape[2] === config.vocabSize); // true
 */
export function loadLlama(directory: string): LoadedModel<Llama, LlamaConfig> {
  return loadFamily<LlamaConfig, Llama, "causal-lm">("loadLlama", directory, () => llama, { head: "causal-lm" });
}

/**
 * `loadModel` of a GPT-2 with its language-model head. Keys may lack the "transformer." prefix, as the hub's own GPT-2
 * has them; the stored causal masks (attn.bias, attn.masked_bias) are ignored.
 *
 * Source: transformers, GPT2LMHeadModel.from_pretrained.
 * @throws FileError, FormatError naming what is missing, unknown, there twice or of another shape than config.json says
 *
 * @example
 * const { model } = models.loadGpt2("gpt2");
 * peft.getLoraModel(model, { r: 8, loraAlpha: 16, targetModules: ["c_attn"] });
 */
export function loadGpt2(directory: string): LoadedModel<Gpt2, Gpt2Config> {
  return loadFamily<Gpt2Config, Gpt2, "causal-lm">("loadGpt2", directory, () => gpt2, { head: "causal-lm" });
}
