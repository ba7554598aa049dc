/** In a file of its own, since files on disk and files in memory both need it, and neither imports the other. */

/** A file that is to be written: its place and its whole contents. */
export interface FileToWrite {
  path: string;
  bytes: Uint8Array;
  /**
   * A path for what is there now. Killed between the two renamings, the old contents are there and nothing is at
   * `path`.
   */
  previous?: string | undefined;
}
