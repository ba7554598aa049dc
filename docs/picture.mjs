/**
 * docs/before-after.svg, from a real run:
 *
 *   npm run finetune && node docs/picture.mjs
 *
 * Its loss curve, and what the model says to the same prompt and seed without the adapter and with it.
 */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { scaleLinear } from "d3-scale";
import { line } from "d3-shape";
import { meanAt } from "../dist/src/cli/plot.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = process.argv[2] ?? "runs/moby-dick";
const { settings, losses, heldOutBefore, heldOutAfter } = JSON.parse(
  readFileSync(`${root}/${run}/result.json`, "utf8"),
);

function sample(...adapter) {
  const args = ["dist/src/cli/main.js", "generate", "--model", settings.model, "--prompt", settings.prompt, ...adapter];
  return execFileSync(process.execPath, args, { cwd: root, encoding: "utf8" }).trim();
}

const WIDTH = 880;
const HEIGHT = 330;
const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

/** Lines of at most `columns` characters, at most `most` of them. */
function wrap(text, columns, most) {
  const lines = [""];
  for (const word of text.split(/\s+/)) {
    if (`${lines.at(-1)} ${word}`.length > columns) lines.push(word);
    else lines[lines.length - 1] = `${lines.at(-1)} ${word}`.trim();
  }
  return lines.length > most ? [...lines.slice(0, most - 1), `${lines[most - 1]} ...`] : lines;
}

function panel(y, title, colour, text) {
  const lines = wrap(text, 54, 5).map(
    (words, i) =>
      `<text x="458" y="${y + 46 + i * 20}" font-family="Georgia, serif" font-size="15" ` +
      `fill="#111827">${escape(words)}</text>`,
  );
  return `<rect x="440" y="${y}" width="424" height="138" rx="8" fill="#f9fafb" stroke="${colour}"/>
<text x="458" y="${y + 22}" font-size="13" font-weight="600" fill="${colour}">${escape(title)}</text>
${lines.join("\n")}`;
}

const mean = losses.map((_, step) => meanAt(losses, step));
const x = scaleLinear([1, losses.length], [52, 410]);
const y = scaleLinear([Math.min(...losses, heldOutAfter), Math.max(...losses, heldOutBefore)], [284, 56]).nice();
const path = line(
  (_, i) => x(i + 1),
  (v) => y(v),
).digits(1);
const ticks = y
  .ticks(5)
  .map(
    (v) =>
      `<line x1="52" x2="410" y1="${y(v)}" y2="${y(v)}" stroke="#e5e7eb"/><text x="44" y="${y(v) + 4}" ` +
      `text-anchor="end">${y.tickFormat(5)(v)}</text>`,
  );
const steps = x.ticks(5).map((v) => `<text x="${x(v)}" y="304" text-anchor="middle">${v}</text>`);
const perplexity = (loss) => Math.exp(loss).toFixed(2);
const title = (name, loss) => `${name}: held-out perplexity ${perplexity(loss)}`;

writeFileSync(
  `${root}/docs/before-after.svg`,
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" ` +
    `font-family="system-ui, sans-serif" font-size="12" fill="#374151">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="52" y="30" font-size="15" font-weight="600">Loss over ${losses.length} steps of LoRA on Moby-Dick</text>
${ticks.join("\n")}
${steps.join("\n")}
<text x="231" y="322" text-anchor="middle">step</text>
<path d="${path(losses)}" fill="none" stroke="#93c5fd"/>
<path d="${path(mean)}" fill="none" stroke="#1d4ed8" stroke-width="2.5"/>
${panel(16, title("before", heldOutBefore), "#6b7280", sample())}
${panel(174, title("after", heldOutAfter), "#1d4ed8", sample("--adapter", `${run}/adapter`))}
</svg>
`,
);
