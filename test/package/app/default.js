import { say } from "./base.js";
import { show } from "./page.js";
import { count } from "./threads.js";
import { train } from "./train.js";
const { search } = location;
show(search === "?base" ? say() : search === "?threads" ? count() : train({ fused: search === "?fused" }));
