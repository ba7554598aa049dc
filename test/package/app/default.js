import { show } from "./page.js";
import { train } from "./train.js";
show(train({ relaxed: location.search === "?relaxed" }));
