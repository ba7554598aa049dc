import { train } from "./train.js";
console.log(await train());
