/**
 * train.jsonl, valid.jsonl and test.jsonl, from phrases.mjs:
 *
 *   node examples/task/make.mjs
 *
 * A row is a request and its answer, one line of JSON. The requests of test.jsonl are said in phrases that no other row
 * has, of a device in a room where no other row has it.
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { OPENINGS, ROOMS, WHEN, WISHES } from "./phrases.mjs";

/** A generator of whole numbers below n: Numerical Recipes' linear congruential one. */
function numbers(seed) {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 4294967296) * n);
  };
}

/** The wishes in turn; those with a number, which has many values, twice. */
const TURNS = WISHES.flatMap((wish) => (wish.set.every(Number.isFinite) ? [wish, wish] : [wish]));
const DEVICES = [...new Set(WISHES.map(({ device }) => device))];
/** Each device is held out in two of the eight rooms. */
const isHeldOut = (device, room) => (room + DEVICES.indexOf(device)) % 4 === 0;

/**
 * @param part of the phrases, "learn" or "test"
 * @param said requests that are taken; those of the new rows are added
 */
function makeRows(part, count, seed, said = new Set()) {
  const below = numbers(seed);
  const pick = (list) => list[below(list.length)];
  const rows = [];
  while (rows.length < count) {
    const { device, set: sets, [part]: phrases } = TURNS[rows.length % TURNS.length];
    const room = below(ROOMS.length);
    if (isHeldOut(device, room) !== (part === "test")) continue;
    const set = pick(sets);
    const kind = below(3) > 0 ? "do" : "say";
    const when = below(3) === 0 ? pick(Object.keys(WHEN)) : null;
    const time = when === null ? "" : ` ${pick(WHEN[when][part])}`;
    const opening = pick(OPENINGS[part][kind]);
    const phrase = pick(phrases[kind]).replace("#", ROOMS[room]).replace("@", set);
    const words = `${opening}${phrase}${time}`;
    if (said.has(words)) continue;
    said.add(words);
    const end = opening.startsWith("could") ? "?" : pick([".", ""]);
    const request = `${words[0].toUpperCase()}${words.slice(1)}${end}`;
    const answer = { device, room: ROOMS[room], set, ...(when && { when }) };
    rows.push([
      { role: "user", content: request },
      { role: "assistant", content: JSON.stringify(answer) },
    ]);
  }
  return rows;
}

/** Some requests follow others, so that the model learns to answer each, whatever was said before. */
function conversations(rows) {
  const alone = Math.round((2 * rows.length) / 3);
  const following = rows.slice(alone);
  return [
    ...rows.slice(0, alone),
    ...following.flatMap((_, i) => (i % 3 === 0 ? [following.slice(i, i + 3).flat()] : [])),
  ];
}

/** The three files by their names, as texts. */
export function files() {
  const said = new Set();
  const parts = {
    "train.jsonl": conversations(makeRows("learn", 900, 1, said)),
    "valid.jsonl": makeRows("learn", 90, 2, said),
    "test.jsonl": makeRows("test", 140, 3),
  };
  return Object.entries(parts).map(([name, rows]) => [
    name,
    rows.map((messages) => `${JSON.stringify({ messages })}\n`).join(""),
  ]);
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const [name, text] of files()) writeFileSync(new URL(name, import.meta.url), text);
