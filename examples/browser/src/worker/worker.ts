/** The worker: the page calls what is exposed here through Comlink. */
import { expose } from "comlink";
import { Studio } from "./studio";

expose(new Studio());
