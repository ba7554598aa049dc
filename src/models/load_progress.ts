/** How far the loading of a file is. */
export interface LoadProgress {
  /** Its name in the folder. */
  file: string;
  /** Bytes so far. */
  loaded: number;
  /** Bytes of the file; null where a server does not say. */
  total: number | null;
}

/** Is told, for each piece that comes, how far it is. */
export type OnProgress = (progress: LoadProgress) => void;
