/** What the reader of a format finds: a value that ought to be an object, and its place, as errors name it. */
export interface FoundRow {
  value: unknown;
  where: string;
}
