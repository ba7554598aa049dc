/** Live bytes, the peak and what is reserved stay as they are over 2,000 steps of training. */
import { test } from "uvu";
import { init, nn } from "../../src/index.js";
import { staysFlat } from "../support/flat_memory.js";

await init();
// The first draw makes the random stream's state, which stays.
new nn.Linear(1, 1).dispose();

staysFlat(2000);

test.run();
