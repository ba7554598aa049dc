import { train } from "./train.js";
train().then(console.log, (error) => console.log(`${error.name}: ${error.message}`));
