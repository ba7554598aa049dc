/**
 * erf in float64, for references: 2 / sqrt(pi) * exp(-x^2) * sum over k of 2^k x^(2k+1) / (2k+1)!!
 * (DLMF 7.6.2). All terms have one sign, so nothing cancels. From |x| = 6 on, erf rounds to 1.
 */
export function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let k = 1; Math.abs(term) > Math.abs(sum) * 1e-18; k++) {
    term *= (2 * x * x) / (2 * k + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}
