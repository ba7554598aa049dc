/** Names of models on the Hugging Face hub: org/name, or org/name@revision. */

/** The hub itself; mirrors and local servers have its endpoints elsewhere. */
export const HUB = "https://huggingface.co";

/** A repository, and which state of it. */
export interface HubName {
  /** org/name. */
  repo: string;
  /** A branch, a tag or a commit; undefined: the main branch. */
  revision: string | undefined;
}

/**
 * @returns undefined for a text that names nothing on the hub. A relative path of two parts does: whoever takes both
 * looks for a folder first
 *
 * Source: huggingface_hub, utils/_validators.py (validate_repo_id); git-check-ref-format.
 */
export function parseHubName(text: string): HubName | undefined {
  const [, repo, revision] = /^(\w[\w.-]*\/\w[\w.-]*)(?:@(\w[\w./-]*))?$/.exec(text) ?? [];
  if (repo === undefined || repo.length > 96 || /--|\.\.|[.-](\/|$)|\.git$/.test(repo)) return undefined;
  // A revision becomes a part of a path.
  if (revision !== undefined && /\.\.|\/\/|\/\.|[./]$/.test(revision)) return undefined;
  return { repo, revision };
}

/** Whether it is a whole commit's name. */
export function isCommit(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-f]{40}$/.test(value);
}

/** The name as it is written. */
export function spellHubName({ repo, revision }: HubName): string {
  return revision === undefined ? repo : `${repo}@${revision}`;
}
