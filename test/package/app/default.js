import { say } from "./base.js";
import { show } from "./page.js";
import { train } from "./train.js";
show(location.search === "?base" ? say() : train({ fused: location.search === "?fused" }));
