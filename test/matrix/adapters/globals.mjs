/** What the npm packages `assert` and `util` expect to find, where there is no Node. */
export { Buffer } from "buffer/";
export const process = { env: {}, emitWarning() {} };
