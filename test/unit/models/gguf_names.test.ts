/** GGUF's names of tensors and the order of their rows. Expected values: llama.cpp's converters, run on arange. */
import assert from "node:assert/strict";
import { test } from "uvu";
import {
  ggufArchitecture,
  ggufName,
  ggufOffset,
  ggufRowOrder,
  isTransposedInGguf,
  keyOfGguf,
} from "../../../src/models/gguf_names.js";
import { init, models } from "../../../src/index.js";
import { decoderCases, familyPath } from "../../support/families.js";

await init();

test("every tensor of every family has a name, and the name leads back", () => {
  const ours = new Set<string>();
  for (const name of decoderCases()) {
    const { model, config } = models.loadModel(familyPath(name));
    const architecture = ggufArchitecture(config.modelType);
    if (architecture === undefined) continue;
    ours.add(architecture);
    for (const [key] of model.namedParameters()) {
      const named = ggufName(architecture, key);
      assert.ok(named !== undefined && /^(blk\.\d+\.)?\w+\.(weight|bias)$/.test(named), `${name}: ${key}`);
      assert.equal(keyOfGguf(architecture, named), key.replace("model.language_model.", "model."));
    }
    model.dispose();
  }
  assert.equal(ours.size, 12);
  assert.equal(ggufArchitecture("bert"), undefined);
  assert.equal(ggufName("llama", "model.layers.3.self_attn.q_norm.weight"), undefined);
  assert.equal(keyOfGguf("llama", "rope_freqs.weight"), undefined);
});

test("names are those of gguf-py", () => {
  for (const [architecture, key, name] of [
    ["llama", "model.embed_tokens.weight", "token_embd.weight"],
    ["llama", "lm_head", "output"],
    ["llama", "model.layers.11.mlp.down_proj.weight", "blk.11.ffn_down.weight"],
    ["qwen2", "model.layers.0.self_attn.k_proj.bias", "blk.0.attn_k.bias"],
    ["qwen3", "model.layers.0.self_attn.k_norm.weight", "blk.0.attn_k_norm.weight"],
    ["gemma", "model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"],
    ["gemma3", "model.layers.0.post_attention_layernorm.weight", "blk.0.post_attention_norm.weight"],
    ["gemma3", "model.layers.0.pre_feedforward_layernorm.weight", "blk.0.ffn_norm.weight"],
    ["gemma2", "model.layers.0.post_feedforward_layernorm.weight", "blk.0.post_ffw_norm.weight"],
    ["olmo2", "model.layers.0.post_feedforward_layernorm.weight", "blk.0.post_ffw_norm.weight"],
    ["phi3", "model.layers.1.mlp.gate_up_proj.weight", "blk.1.ffn_up.weight"],
    ["gpt2", "transformer.h.2.attn.c_proj.weight", "blk.2.attn_output.weight"],
    ["gptneox", "gpt_neox.layers.2.mlp.dense_4h_to_h.bias", "blk.2.ffn_down.bias"],
  ] as const)
    assert.equal(ggufName(architecture, key), name);
});

test("rows of queries and keys lie as llama.cpp's permute puts them", () => {
  // np.arange(16).reshape(2, 2, 4).swapaxes(1, 2).reshape(16), with two heads of eight rows
  const order = [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15];
  const heads = { heads: 2, kvHeads: 1 };
  assert.deepEqual([...ggufRowOrder("llama", "blk.0.attn_q.weight", 16, heads)!], order);
  assert.deepEqual([...ggufRowOrder("llama", "blk.0.attn_k.bias", 8, heads)!], order.slice(0, 8));
  assert.equal(ggufRowOrder("llama", "blk.0.attn_v.weight", 8, heads), null);
  assert.equal(ggufRowOrder("llama", "blk.0.attn_q_norm.weight", 8, heads), null);
  for (const other of ["qwen2", "qwen3", "gemma3", "phi3"])
    assert.equal(ggufRowOrder(other, "blk.0.attn_q.weight", 16, heads), null);
  for (const other of ["smollm3", "granite"])
    assert.deepEqual([...ggufRowOrder(other, "blk.0.attn_q.weight", 16, heads)!], order);
  // np.arange(12).reshape(2, 3, 2).swapaxes(0, 1).reshape(12)
  assert.deepEqual(
    [...ggufRowOrder("gptneox", "blk.0.attn_qkv.weight", 12, { heads: 2, kvHeads: 2 })!],
    [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11],
  );
});

test("GPT-2's matrices are turned, and Gemma's norms have 1 added", () => {
  assert.ok(isTransposedInGguf("gpt2", "blk.0.attn_qkv.weight"));
  assert.ok(!isTransposedInGguf("gpt2", "blk.0.attn_qkv.bias"));
  assert.ok(!isTransposedInGguf("gpt2", "token_embd.weight"));
  assert.ok(!isTransposedInGguf("llama", "blk.0.attn_q.weight"));
  assert.equal(ggufOffset("gemma3", "blk.0.attn_q_norm.weight"), 1);
  assert.equal(ggufOffset("gemma", "output_norm.weight"), 1);
  assert.equal(ggufOffset("gemma", "blk.0.attn_q.weight"), 0);
  assert.equal(ggufOffset("qwen3", "output_norm.weight"), 0);
});

test.run();
