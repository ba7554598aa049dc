/** What a visitor sees and does; `b` is a browser of drivers.mjs. */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { unzipSync } from "fflate";
import * as wasmLora from "wasm-lora";

export const shots = fileURLToPath(new URL("shots/", import.meta.url));
mkdirSync(shots, { recursive: true });

export async function until(b, what, fn, ...args) {
  const deadline = Date.now() + 120000;
  while (!(await b.evaluate(fn, ...args))) {
    if (Date.now() > deadline)
      throw new Error(`waited in vain for ${what}; the page says: ${await b.evaluate(() => document.body.innerText)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
export const textOf = (b, id) => b.evaluate((id) => document.getElementById(id).textContent, id);
export const untilText = (b, id, part) =>
  until(b, `"${part}" in #${id}`, (id, part) => document.getElementById(id).textContent.includes(part), id, part);
export const stepOf = async (b) => Number((await textOf(b, "figure-step")).split(" / ")[0]);
export const untilStep = (b, step) =>
  until(b, `step ${step}`, (step) => document.getElementById("progress").value >= step, step);
/** The field gets the text as from the clipboard: in place of what was there, with its events. */
export const paste = (b, id, value) =>
  b.evaluate(
    (id, value) => {
      const field = document.getElementById(id);
      field.focus();
      field.select();
      document.execCommand(value ? "insertText" : "delete", false, value);
    },
    id,
    value,
  );
export const focused = (b) => b.evaluate(() => document.activeElement.id);
export const focus = (b, id) => b.evaluate((id) => document.getElementById(id).focus(), id);
export const choose = (b, id, value) =>
  b.evaluate(
    (id, value) => {
      const select = document.getElementById(id);
      select.value = value;
      for (const type of ["input", "change"]) select.dispatchEvent(new Event(type, { bubbles: true }));
    },
    id,
    value,
  );
/** Pixels of the loss curve's colour. */
const curvePixels = (b) =>
  b.evaluate(() => {
    const canvas = document.querySelector("#chart canvas");
    if (!canvas) return 0;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const [red, green, blue] = getComputedStyle(document.getElementById("chart"))
      .getPropertyValue("--accent")
      .match(/[0-9a-f]{2}/g)
      .map((hex) => parseInt(hex, 16));
    let count = 0;
    for (let i = 0; i < data.length; i += 4)
      if (data[i] === red && data[i + 1] === green && data[i + 2] === blue && data[i + 3] === 255) count++;
    return count;
  });
/** The chart is drawn with the next frame, which may take a browser without a screen a while. */
export async function untilCurve(b) {
  for (let attempt = 0; (await curvePixels(b)) <= 20; attempt++) {
    assert.ok(attempt < 100, "the chart has a curve");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
export const savedLosses = async (b) => {
  const bytes = await b.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open("keyval-store");
        opening.onerror = reject;
        opening.onsuccess = () => {
          const reading = opening.result.transaction("keyval").objectStore("keyval").get("run");
          reading.onsuccess = () => resolve([...reading.result.checkpoint]);
        };
      }),
  );
  return wasmLora.train.decodeCheckpoint(Uint8Array.from(bytes)).state.metrics.map(({ loss }) => loss);
};
export const downloaded = async (b, id = "download") =>
  Buffer.from(
    await b.evaluate(async (id) => {
      const bytes = new Uint8Array(await (await fetch(document.getElementById(id).href)).arrayBuffer());
      return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    }, id),
    "base64",
  );
export const weightsOf = (zip) => Buffer.from(unzipSync(zip)["adapter/adapter_model.safetensors"]);
export const configOf = (zip) => JSON.parse(Buffer.from(unzipSync(zip)["adapter/adapter_config.json"]).toString());

/** Shows Chromium's page in light or in dark, and waits until its colours have stopped changing. */
export async function inScheme(b, scheme) {
  await b.page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await b.evaluate(async () => {
    for (let frames = 0; frames < 2; frames++) await new Promise(requestAnimationFrame);
    const transitions = document.getAnimations().filter((animation) => animation instanceof CSSTransition);
    await Promise.allSettled(transitions.map(({ finished }) => finished));
  });
}

/** What was said last on one side of the chat. */
export const lastSaid = (b, side) =>
  b.evaluate((id) => document.getElementById(id).lastElementChild?.textContent ?? "", `talk-${side}`);

/** How many threads compute, as the page says. */
export const threadsOf = async (b) =>
  Number(/, computed on (\d+) threads$/.exec(await textOf(b, "model-size"))?.[1] ?? 1);

/** Says it to both, and waits for the answers. */
export async function talk(b, message, { how = "text", seed = 0, temperature = 0.8 } = {}) {
  // Another way of speaking begins anew.
  if ((await b.evaluate(() => document.getElementById("how").value)) !== how) await choose(b, "how", how);
  await paste(b, "seed", `${seed}`);
  await paste(b, "temperature", `${temperature}`);
  await paste(b, "message", message);
  await b.evaluate(() => {
    document.getElementById("announce").textContent = "";
  });
  await focus(b, "message");
  await b.press("Enter");
  await untilText(b, "announce", "Without an adapter: ");
  return { base: await lastSaid(b, "base"), adapted: await lastSaid(b, "adapted") };
}

export async function shoot(b, name, state) {
  for (const [size, width, height] of [
    ["desktop", 1280, 1800],
    ["phone", 360, 3800],
  ]) {
    await b.resize(width, height);
    // The chart follows its box one frame later.
    await new Promise((resolve) => setTimeout(resolve, 200));
    await b.screenshot(join(shots, `${name}-${state}-${size}.png`));
    assert.ok(
      await b.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth),
      `${state}: the page scrolls sideways at ${size} width`,
    );
  }
  await b.resize(1280, 900);
}
