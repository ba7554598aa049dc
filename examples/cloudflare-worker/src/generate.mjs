/** Text from the base model with the callers' adapters. Both functions draw the same tokens for the same request. */
import { Generator, models, noGrad, ops, scope, StateError, tensor } from "wasm-lora";

/** Lets other requests and slices have a turn. */
const turn = () => scheduler.wait(0);

/** @param request { ids, adapter, seed, temperature, maxNewTokens } @returns text */
export async function generateOne(base, { ids, adapter, seed, temperature, maxNewTokens }) {
  const held = adapter && base.hold(adapter);
  const drawn = [];
  try {
    // The adapter at work when generate is called is that of all its tokens, whatever others do between two of them.
    const options = { maxNewTokens, temperature, seed, stopToken: base.eosTokenIds };
    const tokens = base.withAdapters([adapter], (model) => models.generate(model, ids, options));
    for (const token of tokens) {
      drawn.push(token);
      await turn();
    }
    return base.decode(drawn);
  } finally {
    held?.release();
  }
}

/**
 * The prompts of several users in one forward pass a token, each with its own adapter. Prompts are padded on the
 * right, where causal attention does not look.
 */
export async function generateBatch(base, requests) {
  const rows = requests.map((request) => ({
    ...request,
    ids: [...request.ids],
    drawn: [],
    generator: new Generator(request.seed),
  }));
  for (let live = rows; (live = live.filter((row) => row.drawn.length < row.maxNewTokens && !row.ended)).length > 0; ) {
    scope(() => noGrad(() => step(base, live)));
    await turn();
  }
  return rows.map(({ drawn }) => base.decode(drawn));
}

function step(base, rows) {
  const width = Math.max(...rows.map(({ ids }) => ids.length));
  const vocabulary = base.config.vocabSize;
  const ids = new Int32Array(rows.length * width);
  for (const [i, row] of rows.entries()) ids.set(row.ids, i * width);
  const logits = base.withAdapters(
    rows.map(({ adapter }) => adapter),
    (model) => model.forward(tensor(ids, [rows.length, width])),
  );
  for (const [i, row] of rows.entries()) {
    const last = (i * width + row.ids.length - 1) * vocabulary;
    const token = draw(tensor(logits.data.slice(last, last + vocabulary)), row);
    row.ended = base.eosTokenIds.includes(token);
    if (row.ended) continue;
    row.ids.push(token);
    row.drawn.push(token);
  }
}

/** As models.generate draws. */
function draw(logits, { temperature, generator }) {
  const likeliest = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
  const largest = logits.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  if (!Number.isFinite(largest))
    throw new StateError(
      "generate: the logits are not finite, so no token can be drawn: an adapter's weights are too large.",
    );
  if (temperature === 0 || Math.max(1, largest) / temperature > 3.4028234663852886e38) return likeliest(logits.data);
  const u = tensor([0]);
  generator.uniform_(u, 0, 1);
  const probabilities = ops.softmax(ops.scale(logits, 1 / temperature)).data;
  let sum = 0;
  const at = probabilities.findIndex((p) => u.data[0] < (sum += p));
  return at === -1 ? likeliest(probabilities) : at;
}
