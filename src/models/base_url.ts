/** Where the package keeps the embedded base model. A file of its own: a build for pages puts another in its place. */
import { EngineError } from "../runtime/errors.js";

/** The base model's files. */
export const BASE_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] as const;

/**
 * Each address is written out, so that bundlers see it and keep the file.
 * @throws EngineError in a bundle without import.meta.url
 */
export function baseUrl(file: (typeof BASE_FILES)[number]): URL {
  try {
    switch (file) {
      case "config.json":
        return new URL("../../../models/base/config.json", import.meta.url);
      case "tokenizer.json":
        return new URL("../../../models/base/tokenizer.json", import.meta.url);
      case "tokenizer_config.json":
        return new URL("../../../models/base/tokenizer_config.json", import.meta.url);
      case "model.safetensors":
        return new URL("../../../models/base/model.safetensors", import.meta.url);
    }
  } catch (cause) {
    throw new EngineError(
      "loadBase: import.meta.url is empty in this bundle (CommonJS, or no module), so the package's models/base " +
        "cannot be found from it. " +
        "Pass that folder to loadModel, or put its files into io.memoryFiles.",
      { cause },
    );
  }
}
