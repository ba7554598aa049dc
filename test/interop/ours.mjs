/**
 * What this library computes: the logits of a prompt, the likeliest tokens after it, and by how much each was ahead of
 * the next likeliest.
 */
import { models, noGrad, peft, tensor } from "../../dist/src/index.js";

export function compute(path, adapter, prompt, count) {
  const { model } = models.loadModel(path);
  const adapted = adapter === null ? model : peft.LoraModel.fromPretrained(model, adapter);
  const logitsOf = (ids) => {
    const logits = noGrad(() => adapted.forward(tensor(new Int32Array(ids), [1, ids.length])));
    const values = logits.data.slice();
    logits.dispose();
    return values;
  };
  const values = logitsOf(prompt);
  const [tokens, margins] = [[], []];
  while (tokens.length < count) {
    const ids = [...prompt, ...tokens];
    const all = logitsOf(ids);
    const row = all.subarray(all.length - all.length / ids.length);
    const [first, second] = Array.from(row, (value, token) => ({ value, token })).sort((a, b) => b.value - a.value);
    tokens.push(first.token);
    margins.push(first.value - second.value);
  }
  adapted.dispose();
  return { values, tokens, margins };
}
