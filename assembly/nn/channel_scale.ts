/**
 * A factor and, if bias is not null, a summand for each channel: y = x * g[c] (+ bias[c]), rounded twice.
 * Backward: dx += dy * g[c]; dg[c] += dy * x; dBias[c] += dy: one accumulator a channel, outer, then inner
 * ascending. Torch: x * g.view(1, -1, 1, ...) + bias.
 * x, dx, y, dy: [outer, channels, inner] contiguous (inner = 1: channels last). g, dg, bias, dBias: [channels].
 * y may be x. dx, dg or dBias null: not wanted.
 */
import { ChannelScaleBackward } from "../abi";
import { first, last, LINE, part, split } from "../threads";
import { addProductValues, addToValues, addValues, axpyValues, mulValues, scaleValues } from "./elementwise";

/** Cycles for a value, about; of a channel that has one accumulator for all of a plane, in a row. */
const COST: f64 = 1;
const IN_A_ROW: f64 = 6;

export function channelScaleForward(
  y: usize,
  x: usize,
  g: usize,
  bias: usize,
  outer: i32,
  channels: i32,
  inner: i32,
): void {
  const plane = (<usize>(inner == 1 ? channels : inner)) << 2;
  const planes = inner == 1 ? outer : outer * channels;
  for (split(planes, COST * <f64>(plane >> 2)); part(); )
    for (let i = first; i < last; i++) {
      const from = x + <usize>i * plane,
        to = y + <usize>i * plane;
      if (inner == 1) {
        mulValues(to, from, g, channels);
        if (bias != 0) addValues(to, to, bias, channels);
      } else {
        const c = (<usize>(i % channels)) << 2;
        memory.copy(to, from, plane);
        scaleValues(to, inner, load<f32>(g + c));
        if (bias != 0) addToValues(to, inner, load<f32>(bias + c));
      }
    }
}

/** By channels, of which each has all of its sums. */
export function channelScaleBackward(call: ChannelScaleBackward): void {
  const outer = call.outer,
    inner = call.inner;
  for (split(call.channels, (inner == 1 ? COST : IN_A_ROW) * <f64>outer * <f64>inner, inner == 1 ? LINE : 1); part(); )
    if (inner == 1) for (let i = 0; i < outer; i++) lastChannels(call, i);
    else for (let c = first; c < last; c++) for (let i = 0; i < outer; i++) onePlane(call, i, c);
}

/** Row i, channels `first` to `last` - 1; inner = 1. */
function lastChannels(call: ChannelScaleBackward, i: i32): void {
  const n = last - first,
    c = (<usize>first) << 2,
    at = ((<usize>i * <usize>call.channels) << 2) + c;
  if (call.dx != 0) addProductValues(call.dx + at, call.dy + at, call.g + c, n);
  if (call.dg != 0) addProductValues(call.dg + c, call.dy + at, call.x + at, n);
  if (call.dBias != 0) addValues(call.dBias + c, call.dBias + c, call.dy + at, n);
}

/** Plane i of channel c. */
function onePlane(call: ChannelScaleBackward, i: i32, c: i32): void {
  const inner = call.inner,
    at = (<usize>(i * call.channels + c) * <usize>inner) << 2,
    channel = (<usize>c) << 2;
  if (call.dx != 0) axpyValues(call.dx + at, call.dy + at, inner, load<f32>(call.g + channel));
  if (call.dg != 0) addProducts(call.dg + channel, call.dy + at, call.x + at, inner);
  if (call.dBias != 0) addSum(call.dBias + channel, call.dy + at, inner);
}

function addProducts(to: usize, a: usize, b: usize, n: i32): void {
  let sum = load<f32>(to);
  for (; n > 0; n--, a += 4, b += 4) sum += load<f32>(a) * load<f32>(b);
  store<f32>(to, sum);
}

function addSum(to: usize, a: usize, n: i32): void {
  let sum = load<f32>(to);
  for (; n > 0; n--, a += 4) sum += load<f32>(a);
  store<f32>(to, sum);
}
