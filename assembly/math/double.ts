/**
 * exp and log of one float64, for tables made once (RoPE frequencies: theta^(-2i/d) =
 * exp64(-2i/d * log64(theta))) and for scalars. They are AssemblyScript's NativeMath, a port of
 * musl's, compiled into the module: the same bits in every runtime, which the host's Math does not
 * promise. Relative error below 1e-14 (both are within 1 ulp).
 */
export function exp64(x: f64): f64 {
  return NativeMath.exp(x);
}

export function log64(x: f64): f64 {
  return NativeMath.log(x);
}
