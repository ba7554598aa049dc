/**
 * What one user, one request and one isolate may take.
 *
 * An isolate has 128 MB. Work is counted in tokens and steps, not in milliseconds: a Worker's clock stands
 * still while it computes.
 */
export const LIMITS = {
  /** Of linear memory, for the base, adapters, activations and moments. */
  linearMemoryBytes: 48 * 2 ** 20,
  /** Adapters kept in the model between requests; the one longest unused goes first. */
  adaptersAtHand: 16,
  bodyBytes: 256 * 1024,
  /** Of all rows of a user. */
  tokens: 50_000,
  /** Of a row; what is longer loses its end. */
  rowTokens: 128,
  /** Bad rows that an answer names. */
  faultsNamed: 20,
  /** Of one POST .../train, and of a user's adapter in all. */
  stepsPerRequest: 400,
  stepsPerUser: 4_000,
  /** Between two slices of a user's training, everyone else has a turn. */
  stepsPerSlice: 4,
  /** Of a slice, when memory or the engine fails; a second, two, four ... lie between. */
  attemptsPerSlice: 5,
  promptTokens: 128,
  /** Looked at before a prompt is cut into tokens; 128 of the base's longest have 1664. */
  promptCharacters: 2_000,
  newTokens: 48,
  prompts: 4,
  /** Requests that generate at the same time, in one isolate. */
  generations: 8,
};
