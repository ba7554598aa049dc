/** llama.cpp by node-llama-cpp, on the CPU, with its prebuilt binaries: nothing is built or fetched. */
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const llama = await getLlama({
  build: "never",
  gpu: false,
  skipDownload: true,
  maxThreads: 1,
  progressLogs: false,
  logLevel: LlamaLogLevel.error,
});
export const { release } = llama.llamaCppRelease;

/** As `compute`; keys and values are kept in float32, so that nothing but the arithmetic differs. */
export async function computeByLlama(path, adapter, prompt, count) {
  const model = await llama.loadModel({ modelPath: path });
  const context = await model.createContext({
    contextSize: 64,
    sequences: 1,
    threads: 1,
    flashAttention: false,
    experimentalKvCacheKeyType: "F32",
    experimentalKvCacheValueType: "F32",
    ...(adapter === null ? {} : { lora: { adapters: [{ filePath: adapter }] } }),
  });
  const sequence = context.getSequence();
  const options = { generateNext: { token: true, logits: true, options: { temperature: 0 } } };
  const rows = await sequence.controlledEvaluate(prompt.map((token) => [token, options]));
  const values = Float32Array.from(rows.flatMap(({ next }) => byToken(next.logits)));
  const tokens = [rows.at(-1).next.token];
  while (tokens.length < count) {
    const [{ next }] = await sequence.controlledEvaluate([[tokens.at(-1), options]]);
    tokens.push(next.token);
  }
  await context.dispose();
  await model.dispose();
  return { values, tokens };
}

function byToken(logits) {
  const row = new Array(logits.size);
  for (const [token, value] of logits) row[token] = value;
  return row;
}
