/** In a file of its own, since files on disk and files in memory both are such. */

/** A file that is open, to be read at any place. */
export interface OpenFile {
  /** Where it is. */
  readonly path: string;
  /** Its bytes, when it was opened. */
  readonly size: number;
  /** Fills `into` with the bytes from `at` on. @throws FileError, also where the file has become shorter */
  read(at: number, into: Uint8Array): void;
  /** Idempotent. */
  close(): void;
}

/** A file that is being made, written at any place; nobody else knows of it. */
export interface NewFile {
  /** @throws FileError */
  write(at: number, bytes: Uint8Array): void;
  /** All is on the disk then. @throws FileError */
  close(): void;
}
