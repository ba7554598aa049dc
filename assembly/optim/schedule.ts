/** Half a cosine: (1 + cos(pi * progress)) / 2, from 1 at progress 0 to 0 at progress 1 (Loshchilov & Hutter 2017). */
import { sinCosLow } from "../math/sincos";

export function cosineDecay(progress: f64): f64 {
  const c = f32x4.extract_lane(sinCosLow(f32x4.splat(<f32>(progress * 3.141592653589793))), 2);
  return (1.0 + <f64>c) / 2.0;
}
