/** fast-check with one seed, so that every runtime meets the same cases. */
import fc from "fast-check";

fc.configureGlobal({ seed: 20260101 });
export default fc;
