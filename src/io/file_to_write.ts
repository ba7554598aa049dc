/** A file of its own: what is on disk and what is in memory both have it, and neither knows the other. */

/** A file as it will be. */
export interface FileToWrite {
  path: string;
  bytes: Uint8Array;
  /**
   * A path for what is there now. Killed between the two renamings, the old contents are there and nothing is at
   * `path`.
   */
  previous?: string | undefined;
}
