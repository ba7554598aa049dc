import { say } from "./base.js";
import { train } from "./train.js";
train().then(async (digest) => console.log(`${digest}${await say()}`));
