/** For Jest (whose `test` and `expect` are global) and for vitest with its globals. */
import { train } from "./train.js";

test("trains", async () => expect(await train()).toMatch(/^[0-9a-f]{64}$/));
