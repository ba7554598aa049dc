/**
 * At most `most` of so many places, spread evenly, the first and the last among them.
 * @param all how many there are
 */
export function evenly(all: number, most: number): number[] {
  const shown = Math.min(all, most);
  return Array.from({ length: shown }, (_, i) => Math.round((i * (all - 1)) / Math.max(1, shown - 1)));
}
