/** Names of models on the Hugging Face hub: org/name, org/name@revision, and a GGUF file of either: org/name:Q4_K_M. */

/** The hub itself; mirrors and local servers have its endpoints elsewhere. */
export const HUB = "https://huggingface.co";

/** A repository, and which state of it. */
export interface HubName {
  /** org/name. */
  repo: string;
  /** A branch, a tag or a commit; undefined: the main branch. */
  revision: string | undefined;
  /** A GGUF file of it: its name, or what the name ends with before ".gguf", as Q4_K_M; undefined: the folder. */
  file?: string | undefined;
}

/**
 * @returns undefined for a text that names nothing on the hub. A relative path of two parts does: whoever takes both
 * looks for a folder first
 *
 * Source: huggingface_hub, utils/_validators.py (validate_repo_id); git-check-ref-format; llama.cpp's --hf-repo, for
 * what stands behind the colon.
 */
export function parseHubName(text: string): HubName | undefined {
  const [, repo, revision, file] = /^(\w[\w.-]*\/\w[\w.-]*)(?:@(\w[\w./-]*))?(?::(\w[\w.+/ -]*))?$/.exec(text) ?? [];
  if (repo === undefined || repo.length > 96 || /--|\.\.|[.-](\/|$)|\.(?:git|gguf)$/.test(repo)) return undefined;
  // A revision becomes a part of a path.
  if (revision !== undefined && /\.\.|\/\/|\/\.|[./]$/.test(revision)) return undefined;
  if (file !== undefined && /\.\.|\/\/|\/\./.test(file)) return undefined;
  return { repo, revision, ...(file === undefined ? {} : { file }) };
}

/** Whether it is a whole commit's name. */
export function isCommit(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-f]{40}$/.test(value);
}

/** The name as it is written. */
export function spellHubName({ repo, revision, file }: HubName): string {
  return repo + (revision === undefined ? "" : `@${revision}`) + (file === undefined ? "" : `:${file}`);
}
