/**
 * A factor and, if bias is not null, a summand for each channel: y = x * g[c] (+ bias[c]), rounded twice.
 * Backward: dx += dy * g[c]; dg[c] += dy * x; dBias[c] += dy: one accumulator a channel, outer, then inner
 * ascending. Torch: x * g.view(1, -1, 1, ...) + bias.
 * x, dx, y, dy: [outer, channels, inner] contiguous (inner = 1: channels last). g, dg, bias, dBias: [channels].
 * y may be x. dx, dg or dBias null: not wanted.
 */
import { ChannelScaleBackward } from "../abi";
import { addForward, addScalar, mulBackward, mulForward, saxpy, sscal } from "./elementwise";

export function channelScaleForward(
  y: usize,
  x: usize,
  g: usize,
  bias: usize,
  outer: i32,
  channels: i32,
  inner: i32,
): void {
  if (inner == 1) {
    const row = (<usize>channels) << 2;
    for (; outer > 0; outer--, x += row, y += row) {
      mulForward(y, x, g, channels);
      if (bias != 0) addForward(y, y, bias, channels);
    }
    return;
  }
  const plane = (<usize>inner) << 2;
  for (; outer > 0; outer--) {
    for (let c: usize = 0; c < (<usize>channels) << 2; c += 4, x += plane, y += plane) {
      memory.copy(y, x, plane);
      sscal(y, inner, load<f32>(g + c));
      if (bias != 0) addScalar(y, inner, load<f32>(bias + c));
    }
  }
}

export function channelScaleBackward(call: ChannelScaleBackward): void {
  const dg = call.dg,
    dBias = call.dBias,
    g = call.g,
    channels = call.channels,
    inner = call.inner;
  let dx = call.dx,
    dy = call.dy,
    x = call.x;
  const last = inner == 1,
    runs = last ? call.outer : call.outer * channels;
  const step = (<usize>(last ? channels : inner)) << 2;
  for (let i = 0; i < runs; i++) {
    if (last) {
      if (dx != 0) mulBackward(dx, dy, g, channels);
      if (dg != 0) mulBackward(dg, dy, x, channels);
      if (dBias != 0) addForward(dBias, dBias, dy, channels);
    } else {
      const c = (<usize>(i % channels)) << 2;
      if (dx != 0) saxpy(dx, dy, inner, load<f32>(g + c));
      if (dg != 0) addProducts(dg + c, dy, x, inner);
      if (dBias != 0) addValues(dBias + c, dy, inner);
    }
    if (dx != 0) dx += step;
    dy += step;
    x += step;
  }
}

function addProducts(to: usize, a: usize, b: usize, n: i32): void {
  let sum = load<f32>(to);
  for (; n > 0; n--, a += 4, b += 4) sum += load<f32>(a) * load<f32>(b);
  store<f32>(to, sum);
}

function addValues(to: usize, a: usize, n: i32): void {
  let sum = load<f32>(to);
  for (; n > 0; n--, a += 4) sum += load<f32>(a);
  store<f32>(to, sum);
}
