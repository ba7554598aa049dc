import { train } from "./train.js";
export default {
  async fetch() {
    return new Response(await train());
  },
};
