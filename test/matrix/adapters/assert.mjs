/** node:assert/strict of the npm package, the same code in every runtime. */
import assert from "assert/";

export default assert.strict;
