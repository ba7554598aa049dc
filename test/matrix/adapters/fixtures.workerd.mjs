import pack from "./fixtures.bin";
import { fill } from "./files.mjs";

fill(pack);
