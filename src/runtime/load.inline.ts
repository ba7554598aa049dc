/** The kernels in a package that is cached module by module (JSR), where a file beside them would be fetched at every start. */
export { inlineModule as loadModule } from "../inline.js";
