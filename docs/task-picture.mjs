/**
 * docs/task.svg, from a real run:
 *
 *   npm run finetune:task && node docs/task-picture.mjs
 *
 * How many of the held-out requests the embedded model answers exactly, without the adapter and with it, and some of
 * them.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { evenly } from "../dist/src/cli/evenly.js";
import { data, init, models, peft, train } from "../dist/src/index.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = process.argv[2] ?? "runs/task";
const SHOWN = 7;
const WIDTH = 880;
const ROW = 34;
const TOP = 142;
const HEIGHT = TOP + SHOWN * ROW + 14;

await init();
const { model, tokenizer, eosTokenIds } = await models.loadBase();
const file = `${root}examples/task/test.jsonl`;
const examples = data.readExamples(await data.parseRows(readFileSync(file), file));
const asked = data.answersOf(data.tokenizeExamples(examples, tokenizer, { eosTokenIds }).rows, eosTokenIds);
const before = train.exactMatch(model, asked, { eosTokenIds });
const after = train.exactMatch(peft.LoraModel.fromPretrained(model, `${root}${run}/adapter`), asked, { eosTokenIds });
const { losses } = JSON.parse(readFileSync(`${root}${run}/result.json`, "utf8"));

const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
const clipped = (text, most) => (text.length > most ? `${text.slice(0, most - 3)}...` : text);
const percent = (exact) => `${((100 * exact) / asked.length).toFixed(0)} %`;

const answer = ({ given }, i) => tokenizer.decode(given[i].ids).replace(/\s+/g, " ");
const serif = 'font-family="Georgia, serif" font-size="13"';
const mono = 'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="11"';

function bar(y, name, exact, colour) {
  const width = 520 * (exact / asked.length);
  return `<text x="24" y="${y + 14}" font-weight="600" fill="${colour}">${name}</text>
<rect x="84" y="${y}" width="520" height="19" rx="4" fill="#f3f4f6"/>
<rect x="84" y="${y}" width="${Math.max(width, 2).toFixed(1)}" height="19" rx="4" fill="${colour}"/>
<text x="616" y="${y + 14}">${percent(exact)}: ${exact} of ${asked.length} exact</text>`;
}

/** Spread evenly, and last one that is not answered exactly. */
const shown = evenly(asked.length, SHOWN);
const wrong = after.given.findIndex(({ isExact }) => !isExact);
if (wrong >= 0) shown[SHOWN - 1] = wrong;

function row(k) {
  const i = shown[k];
  const y = TOP + k * ROW;
  const [request] = examples[i].messages;
  const { isExact } = after.given[i];
  const colour = isExact ? "#15803d" : "#b91c1c";
  return `<line x1="24" x2="856" y1="${y}" y2="${y}" stroke="#e5e7eb"/>
<text x="24" y="${y + 21}" ${serif} fill="#111827">${escape(clipped(request.content, 47))}</text>
<text x="316" y="${y + 21}" fill="#9ca3af" font-size="11.5">${escape(clipped(answer(before, i), 17))}</text>
<text x="418" y="${y + 21}" fill="#1d4ed8" ${mono}>${escape(answer(after, i))}</text>
<text x="856" y="${y + 21}" text-anchor="end" fill="${colour}">${isExact ? "✓" : "✗"}</text>`;
}

writeFileSync(
  `${root}docs/task.svg`,
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" ` +
    `font-family="system-ui, sans-serif" font-size="12.5" fill="#374151">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="24" y="30" font-size="15" font-weight="600">Held-out requests, in phrases and places that are new</text>
${bar(46, "before", before.exact, "#9ca3af")}
${bar(72, "after", after.exact, "#1d4ed8")}
<g font-size="11" fill="#6b7280"><text x="24" y="${TOP - 10}">held-out request</text>
<text x="316" y="${TOP - 10}">the model before</text>
<text x="418" y="${TOP - 10}">and after ${losses.length} steps of LoRA</text></g>
${Array.from({ length: SHOWN }, (_, k) => row(k)).join("\n")}
</svg>
`,
);
console.log(`${before.exact} of ${asked.length} before, ${after.exact} after`);
