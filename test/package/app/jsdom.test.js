/** For Jest and vitest with a page's globals and no server. */
import { init, ops, tensor } from "wasm-lora";
import { inlineModule } from "wasm-lora/inline";

test("computes", async () => {
  await init({ module: await inlineModule() });
  expect([...ops.relu(tensor([-1, 2])).data]).toEqual([0, 2]);
});
