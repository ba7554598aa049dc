/** The relaxed build's own export, beside those of index.ts: what tells it from the default build. */
export const relaxed: bool = true;
