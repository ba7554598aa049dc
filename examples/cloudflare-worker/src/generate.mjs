/** Text from the base model with the callers' adapters. Both functions draw the same tokens for the same request. */
import { models } from "wasm-lora";

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

/** The prompts of several users in one forward pass a token, each with its own adapter; the other options are one's. */
export async function generateBatch(base, requests) {
  const adapters = requests.map(({ adapter }) => adapter);
  const drawn = requests.map(() => []);
  const held = [];
  try {
    for (const adapter of adapters) held.push(adapter && base.hold(adapter));
    const [{ maxNewTokens, temperature }] = requests;
    const seed = requests.map((request) => request.seed);
    const options = { maxNewTokens, temperature, seed, stopToken: base.eosTokenIds };
    const prompts = requests.map(({ ids }) => ids);
    let last = -1;
    for (const { row, token } of base.withAdapters(adapters, (model) =>
      models.generateBatch(model, prompts, options),
    )) {
      // All rows have had a token.
      if (row <= last) await turn();
      last = row;
      drawn[row].push(token);
    }
    return drawn.map((ids) => base.decode(ids));
  } finally {
    for (const one of held) one?.release();
  }
}
