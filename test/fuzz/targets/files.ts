/**
 * The other files that strangers may send: texts in any encoding, state dicts, loralib's factors, special tokens, and a
 * model's folder on a server or a hub, of which nothing but its own files is ever asked for. And whatever is inspected,
 * a terminal gets nothing to obey.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "../../../src/cli/inspect.js";
import { data, io, models, peft } from "../../../src/index.js";
import { damage, damageBytes, damageText, joined, textOf, treeOf } from "../json_tree.js";
import type { Random } from "../random.js";
import { must, type Files, type Target } from "../target.js";
import { damageWeights, encode, fileOf, FOLDER, withFiles, type Weight } from "../weights.js";
import { folderOf, model } from "./model.js";
import { safetensors } from "./safetensors.js";

type Kind = "text" | "state" | "loralib" | "special" | "server" | "hub" | "inspect";
interface Input {
  kind: Kind;
  files: Files;
  text?: string;
}

const LETTERS = [..."abc xyz\n\t.,", "é", "ñ", "字", "\u{1f600}", "\u2028", "\ufeff"];
const tensor = (name: string, ...shape: number[]): Weight => ({
  name,
  dtype: "F32",
  shape,
  data: new Float32Array(shape.reduce((n, d) => n * d, 1)).fill(0.5),
});
const LORALIB = [
  tensor("q.lora_A", 2, 4),
  tensor("q.lora_B", 6, 2),
  tensor("q.bias", 6),
  tensor("c.lora_A", 3, 6),
  tensor("c.lora_B", 6, 3),
  tensor("m.lora_A", 4, 4),
  tensor("m.lora_B", 8, 2),
];

function utf16(text: string, little: boolean): Uint8Array {
  const bytes = new Uint8Array(2 * text.length);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < text.length; i++) view.setUint16(2 * i, text.charCodeAt(i), little);
  return bytes;
}

function generate(random: Random): Input {
  const kind = random.pick<Kind>(["text", "text", "state", "loralib", "special", "server", "hub", "inspect"]);
  switch (kind) {
    case "text": {
      const text = Array.from({ length: random.below(random.once(50) ? 20_000 : 60) }, () => random.pick(LETTERS)).join(
        "",
      );
      const [mark, bytes] = random.pick([
        [[0xef, 0xbb, 0xbf], encode(text)],
        [[0xff, 0xfe], utf16(text, true)],
        [[0xfe, 0xff], utf16(text, false)],
      ] as const);
      const file = random.once(4) ? bytes : joined(Uint8Array.from(mark), bytes);
      return random.once(2)
        ? { kind, files: { x: damageBytes(file, random.integer(1, 3), random) } }
        : { kind, files: { x: file }, ...(file === bytes ? {} : { text }) };
    }
    case "state":
    case "loralib":
      return {
        kind,
        files: {
          x: fileOf(
            damageWeights(LORALIB, random.few(3), random),
            random,
            random.once(3) ? { format: "pt", digest: "00" } : { format: "pt" },
          ),
        },
      };
    case "special": {
      const text = textOf(
        damage(treeOf({ bos_token_id: 1, eos_token_id: [2, 3], pad_token_id: null }), random.few(4), random, [
          "[1,2]",
          "9",
          "[[1]]",
          '"bos_token_id"',
          '"eos_token_id"',
        ]),
      );
      return { kind, files: { "generation_config.json": encode(random.once(10) ? damageText(text, random) : text) } };
    }
    case "server":
      return { kind, files: folderOf(random) };
    case "hub": {
      const files = folderOf(random);
      const siblings = Object.entries(files).map(([rfilename, { length }]) => ({ rfilename, size: length }));
      const text = textOf(damage(treeOf({ sha: COMMIT, siblings }), random.below(4), random, HOSTILE_LISTINGS));
      return { kind, files: { ...files, [LISTING]: encode(random.once(10) ? damageText(text, random) : text) } };
    }
    default:
      return {
        kind,
        files: random.once(2) ? folderOf(random) : { "model.safetensors": safetensors.generate(random, 0) },
      };
  }
}

const HUB = "https://hub.example";
const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const LISTING = "listing";
const HOSTILE_LISTINGS = [
  ...['"../config.json"', '"//models.example/x.safetensors"', '"sha"', '"size"', '"rfilename"', '"main"'],
  ...["0", "9007199254740991", "-1", "1e9", '{"rfilename":"config.json","size":3}', "[]"],
];

async function fetchedByName(files: Files): Promise<void> {
  const { fetch, setTimeout } = globalThis;
  const folder = `${HUB}/some/model/resolve/${COMMIT}/`;
  globalThis.fetch = (url, init) => {
    const href = String(url);
    const from = Number(/\d+/.exec(new Headers(init?.headers).get("range") ?? "0")![0]);
    if (href === `${HUB}/api/models/some/model/revision/main?blobs=true`)
      return Promise.resolve(new Response(files[LISTING]!.slice()));
    must(
      /^https:\/\/hub\.example\/some\/model\/resolve\/[0-9a-f]{40}\/[\w.-]+$/.test(href),
      () => `${href} is asked for, outside the repository`,
    );
    const body = files[href.slice(folder.length)];
    const status = from > 0 ? 206 : 200;
    return Promise.resolve(body ? new Response(body.slice(from), { status }) : new Response("", { status: 404 }));
  };
  // Nobody is waited for.
  globalThis.setTimeout = ((then: () => void) => setImmediate(then)) as unknown as typeof setTimeout;
  try {
    (await models.fetchModel("some/model", { endpoint: HUB })).model.dispose();
  } finally {
    Object.assign(globalThis, { fetch, setTimeout });
    for (const key of [...io.memoryFiles.keys()]) if (key.includes("hub.example")) io.memoryFiles.delete(key);
  }
}

const SERVER = "https://models.example/some/model/";

async function fetched(files: Files): Promise<void> {
  const { fetch } = globalThis;
  globalThis.fetch = (url) => {
    const { href } = url as URL;
    must(
      /^https:\/\/models\.example\/some\/model\/[\w.-]+$/.test(href),
      () => `${href} is asked for, outside the folder`,
    );
    const body = files[href.slice(SERVER.length)];
    return Promise.resolve(body ? new Response(body.slice()) : new Response("", { status: 404 }));
  };
  try {
    (await models.fetchModel(SERVER)).model.dispose();
  } finally {
    globalThis.fetch = fetch;
    for (const key of [...io.memoryFiles.keys()]) if (key.includes("models.example")) io.memoryFiles.delete(key);
  }
}

async function inspected(files: Files): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "wasm-lora-fuzz-"));
  const { log } = console;
  const said: string[] = [];
  console.log = (text: string) => {
    said.push(text);
  };
  try {
    for (const [name, bytes] of Object.entries(files)) writeFileSync(join(folder, name), bytes);
    await inspect(folder);
    const text = said.join("\n");
    must(
      !/[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/.test(text),
      () => `inspect shows control characters: ${JSON.stringify(text.slice(0, 500))}`,
    );
    must(
      text.split("\n").every((line) => line.length < 2000),
      () => "inspect shows a line of more than 2,000 characters",
    );
  } finally {
    console.log = log;
    rmSync(folder, { recursive: true });
  }
}

async function run({ kind, files, text }: Input): Promise<void> {
  if (kind === "server") return fetched(files);
  if (kind === "hub") return fetchedByName(files);
  if (kind === "inspect") return inspected(files);
  await withFiles(files, () => {
    const path = `${FOLDER}/x`;
    if (kind === "text") {
      const decoded = data.decodeText(files["x"]!, "x.txt");
      must(text === undefined || decoded === text, () => "a text with a byte order mark is read as another");
      must(!/\p{Surrogate}/u.test(decoded), () => "a text holds half a character");
    } else if (kind === "state") {
      const state = io.loadStateDict(path);
      io.saveStateDict(`${FOLDER}/again`, state);
      const again = io.loadStateDict(`${FOLDER}/again`);
      must(
        [...state].every(([key, { data }]) => data.every((value, i) => Object.is(value, again.get(key)?.data[i]))),
        () => "a state dict changed in writing and reading",
      );
    } else if (kind === "loralib") {
      peft.loralibToPeft(io.loadLoralib(path), {
        q: { kind: "Linear", r: 2, loraAlpha: 4 },
        c: { kind: "Conv2d", r: 1, loraAlpha: 2, kernelSize: 3 },
        m: { kind: "MergedLinear", r: 2, loraAlpha: 4, enableLora: [true, false, true], outFeatures: 12 },
      });
    } else {
      const { bosTokenId, eosTokenIds } = data.specialTokens(FOLDER, { bosTokenId: 1, eosTokenId: 2, vocabSize: 8 });
      for (const id of [bosTokenId ?? 0, ...eosTokenIds])
        must(Number.isInteger(id) && id >= 0 && id < 8, () => `${id} is given as a special token`);
    }
  });
}

export const files: Target<Input> = { name: "files", inputs: 5000, prepare: () => model.prepare?.(), generate, run };
