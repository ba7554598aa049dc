import { fill } from "./files.mjs";

fill(await (await fetch("/fixtures.bin")).arrayBuffer());
