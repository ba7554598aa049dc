/** Numbers as the page shows them. */
const FORMAT = new Intl.NumberFormat("en-US");

export function number(value: number): string { return FORMAT.format(value); }
export function megabytes(bytes: number): string { return `${Math.round(bytes / 1048576)} MB`; }
export function perplexity(loss: number): string { return Math.exp(loss).toFixed(1); }

export function duration(seconds: number): string {
  const whole = Math.ceil(seconds), minutes = Math.floor(whole / 60);
  return minutes === 0 ? `${whole} s` : `${minutes} min ${whole % 60} s`;
}
