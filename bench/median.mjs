/** What is made of rounds' times. */
export function median(values) {
  const sorted = [...values].sort((x, y) => x - y);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** How many times as long `theirs` takes as `ours`: the median over the rounds that both ran. */
export function ratio(theirs, ours) {
  return median(theirs.slice(0, ours.length).map((time, round) => time / ours[round]));
}
