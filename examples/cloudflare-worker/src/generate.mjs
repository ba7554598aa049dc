/** Text from the base model with the callers' adapters. Both functions draw the same tokens for the same request. */
import { Generator, models, noGrad, ops, scope, tensor } from "wasm-lora";

/** Lets other requests and slices have a turn. */
const turn = () => scheduler.wait(0);

/** @param request { ids, adapter, seed, temperature, maxNewTokens } @returns text */
export async function generateOne(base, { ids, adapter, seed, temperature, maxNewTokens }) {
  const { model } = base.adapted, stopToken = base.config.eosTokenId;
  const drawn = [], tokens = models.generate(model, ids, { maxNewTokens, temperature, seed, stopToken });
  try {
    for (;;) {
      const { done, value } = base.withAdapters([adapter], () => tokens.next());
      if (done) return base.decode(drawn);
      drawn.push(value);
      await turn();
    }
  } finally {
    tokens.return();
  }
}

/**
 * The prompts of several users in one forward pass a token, each with its own adapter. Prompts are padded on the
 * right, where causal attention does not look.
 */
export async function generateBatch(base, requests) {
  const rows = requests.map((request) => ({ ...request, ids: [...request.ids], drawn: [], generator: new Generator(request.seed) }));
  try {
    for (let live = rows; (live = live.filter((row) => row.drawn.length < row.maxNewTokens && !row.ended)).length > 0;) {
      scope(() => noGrad(() => step(base, live)));
      await turn();
    }
    return rows.map(({ drawn }) => base.decode(drawn));
  } finally {
    for (const { generator } of rows) generator.dispose();
  }
}

function step(base, rows) {
  const width = Math.max(...rows.map(({ ids }) => ids.length)), vocabulary = base.config.vocabSize;
  const ids = new Int32Array(rows.length * width);
  for (const [i, row] of rows.entries()) ids.set(row.ids, i * width);
  const logits = base.withAdapters(rows.map(({ adapter }) => adapter), (model) => model.forward(tensor(ids, [rows.length, width])));
  for (const [i, row] of rows.entries()) {
    const last = (i * width + row.ids.length - 1) * vocabulary;
    const token = draw(tensor(logits.data.slice(last, last + vocabulary)), row);
    row.ended = token === base.config.eosTokenId;
    if (row.ended) continue;
    row.ids.push(token);
    row.drawn.push(token);
  }
}

/** As models.generate draws. */
function draw(logits, { temperature, generator }) {
  const likeliest = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
  if (temperature === 0) return likeliest(logits.data);
  const u = tensor([0]);
  generator.uniform_(u, 0, 1);
  const probabilities = ops.softmax(ops.scale(logits, 1 / temperature)).data;
  let sum = 0;
  const at = probabilities.findIndex((p) => u.data[0] < (sum += p));
  return at === -1 ? likeliest(probabilities) : at;
}
