/** Half a cosine: (1 + cos(pi * progress)) / 2, from 1 at progress 0 to 0 at progress 1 (Loshchilov & Hutter 2017). */
import { sinOf } from "../math/sincos";

export function cosineDecay(progress: f64): f64 {
  return (1.0 + <f64>sinOf(<f32>(progress * 3.141592653589793), 1)) / 2.0;
}
