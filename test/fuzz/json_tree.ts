/**
 * JSON as it is written, not as it is parsed: a tree of tokens, which can hold what no value can (a key twice, 1.0
 * beside 1, a lone surrogate, a number beyond float64, a word that is no token). Inputs start as valid trees and are
 * then damaged.
 */
import type { Random } from "./random.js";

export type Tree = string | { list: Tree[] } | { members: [key: string, value: Tree][] };

/** The tree of a value; strings and numbers become tokens. */
export function treeOf(value: unknown): Tree {
  if (Array.isArray(value)) return { list: value.map(treeOf) };
  if (typeof value === "object" && value !== null) {
    return {
      members: Object.entries(value)
        .filter(([, v]) => v !== undefined)
        .map(([key, v]) => [JSON.stringify(key), treeOf(v)]),
    };
  }
  return JSON.stringify(value);
}

export function textOf(tree: Tree): string {
  if (typeof tree === "string") return tree;
  return "list" in tree
    ? `[${tree.list.map(textOf).join(",")}]`
    : `{${tree.members.map(([key, value]) => `${key}:${textOf(value)}`).join(",")}}`;
}

/** Tokens that a reader may take for what it wants. */
export const TOKENS: readonly string[] = [
  "0",
  "-0",
  "1",
  "2",
  "3",
  "4",
  "8",
  "-1",
  "0.5",
  "1.0",
  "1e0",
  "1e3",
  "1.5",
  "-2.5",
  "1e308",
  "1e309",
  "-1e400",
  "1e-320",
  "4294967295",
  "4294967296",
  "2147483647",
  "2147483648",
  "9007199254740991",
  "9007199254740992",
  "9223372036854775807",
  "18446744073709551615",
  "18446744073709551616",
  "123456789012345678901234567890",
  "1000000",
  "100000000",
  "1000000000000000",
  "null",
  "true",
  "false",
  "[]",
  "{}",
  "[[]]",
  "[0]",
  "[null]",
  "[1,2]",
  '[""]',
  '{"a":1}',
  '{"__proto__":{"polluted":1}}',
  '""',
  '"0"',
  '"1"',
  '"x"',
  '"none"',
  '"all"',
  '"null"',
  '"__proto__"',
  '"constructor"',
  '"\\ud800"',
  '"\\udc00\\ud800"',
  '"\\u0000"',
  '"\\u202e"',
  '"\u001b]0;x\u0007"',
  '"\\u001b[2J"',
  '"\\/"',
  '"../x"',
  '"\ufeff"',
  '"é"',
  "NaN",
  "Infinity",
  "-",
  "01",
  ".5",
  "1.",
  "+1",
  "0x10",
  "tru",
  "'x'",
  '"',
  "undefined",
];

const KEYS: readonly string[] = [
  '"__proto__"',
  '"constructor"',
  '"prototype"',
  '"toString"',
  '""',
  '"a"',
  '"\\u0061"',
  '"\\ud800"',
  '"\\u0000"',
  '"hasOwnProperty"',
  '"length"',
];

interface Place {
  value: Tree;
  set(value: Tree): void;
}

/** Every value in the tree, with a way to replace it. */
function places(root: { tree: Tree }): Place[] {
  const found: Place[] = [];
  const visit = (value: Tree, set: (value: Tree) => void): void => {
    found.push({ value, set });
    if (typeof value === "string") return;
    if ("list" in value)
      value.list.forEach((v, i) => {
        visit(v, (n) => {
          value.list[i] = n;
        });
      });
    else
      for (const member of value.members)
        visit(member[1], (n) => {
          member[1] = n;
        });
  };
  visit(root.tree, (value) => {
    root.tree = value;
  });
  return found;
}

/**
 * The tree with `times` damages: a token or a subtree replaced, something left out, twice, in another place, nested, a
 * key misspelt, and now and then something blown up to thousands.
 * @param words tokens that mean something to the reader
 */
export function damage(tree: Tree, times: number, random: Random, words: readonly string[] = []): Tree {
  const root = { tree: structuredClone(tree) };
  for (let i = 0; i < times; i++) {
    const all = places(root);
    const { value, set } = random.pick(all);
    const token = (): string => random.pick(words.length > 0 && random.once(2) ? words : TOKENS);
    if (random.once(400)) blowUp(value, set, random);
    else if (typeof value === "string") damageToken(value, set, token, all, random);
    else damageCollection(value, set, token, all, random);
  }
  return root.tree;
}

function damageToken(
  value: string,
  set: Place["set"],
  token: () => string,
  all: readonly Place[],
  random: Random,
): void {
  const kind = random.below(8);
  if (kind < 4) set(token());
  else if (kind === 4) set(structuredClone(random.pick(all).value));
  else if (kind === 5 && /^-?\d+$/.test(value)) set(String(BigInt(value) + BigInt(random.integer(-2, 2))));
  else if (kind === 6) set(random.once(2) ? { list: [value] } : { members: [['"a"', value]] });
  else set(damageText(value, random));
}

function damageCollection(
  value: Exclude<Tree, string>,
  set: Place["set"],
  token: () => string,
  all: readonly Place[],
  random: Random,
): void {
  const items: unknown[] = "list" in value ? value.list : value.members;
  const at = random.below(items.length + 1);
  const kind = random.below(8);
  const fresh = (): Tree => (random.once(2) ? token() : structuredClone(random.pick(all).value));
  if (kind < 2) items.splice(at, 1);
  else if (kind < 4)
    items.splice(at, 0, "list" in value ? fresh() : [random.once(2) ? random.pick(KEYS) : token(), fresh()]);
  else if (kind === 4 && items.length > 0) items.splice(at, 0, structuredClone(random.pick(items)));
  else if (kind === 5 && items.length > 1) items.push(...items.splice(0, random.below(items.length)));
  else if (kind === 6 && "members" in value && items.length > 0) {
    const member = random.pick(value.members);
    member[0] = random.once(2) ? damageText(member[0], random) : random.pick(value.members)[0];
  } else set(fresh());
}

/** Thousands of what was one: members, items, characters, levels. */
function blowUp(value: Tree, set: Place["set"], random: Random): void {
  const n = random.pick([300, 3000, 20_000]);
  if (typeof value === "string") {
    set(
      value.startsWith('"')
        ? `"${value.slice(1, -1).repeat(n)}"`
        : random.once(2)
          ? { list: Array.from({ length: n }, () => value) }
          : "9".repeat(n),
    );
  } else if (random.once(2)) set(`${"[".repeat(n)}${textOf(value)}${"]".repeat(n)}`);
  else if ("list" in value) value.list = Array.from({ length: n }, (_, i) => value.list[i % value.list.length] ?? "1");
  else {
    const { members } = value;
    value.members = Array.from({ length: n }, (_, i) => {
      const [key, inner] = members[i % members.length] ?? ['"k"', "1"];
      return [`${key.slice(0, -1)}${i >= members.length ? i : ""}"`, inner];
    });
  }
}

/** One character or run of characters changed. */
export function damageText(text: string, random: Random): string {
  const at = random.below(text.length + 1);
  const length = random.integer(1, 4);
  switch (random.below(4)) {
    case 0:
      return text.slice(0, at) + text.slice(at + length);
    case 1:
      return text.slice(0, at) + text.slice(Math.max(0, at - length)) + text.slice(at);
    case 2:
      return (
        text.slice(0, at) +
        String.fromCharCode(random.once(4) ? random.below(65536) : random.integer(32, 126)) +
        text.slice(at)
      );
    default:
      return text.slice(0, at) + random.pick([...'{}[]":,\\ \t\n0-.e/*']) + text.slice(at + 1);
  }
}

/** Bits flipped, bytes lost, gained, doubled or zeroed, the end cut off. */
export function damageBytes(bytes: Uint8Array, times: number, random: Random): Uint8Array {
  let list = bytes;
  for (let i = 0; i < times; i++) {
    const at = random.below(list.length + 1);
    const length = random.integer(1, 8);
    const rest = list.subarray(at);
    switch (random.below(6)) {
      case 0:
      case 1:
        list = list.slice();
        if (at < list.length) list[at]! ^= 1 << random.below(8);
        break;
      case 2:
        list = joined(list.subarray(0, at), rest.subarray(length));
        break;
      case 3:
        list = joined(list.subarray(0, at), random.bytes(length), rest);
        break;
      case 4:
        list = joined(list.subarray(0, at), rest.subarray(0, length), rest);
        break;
      default:
        list = list.slice(0, random.once(4) ? at : Math.max(0, list.length - length));
    }
  }
  return list;
}

export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
