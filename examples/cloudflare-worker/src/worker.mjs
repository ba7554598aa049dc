/** The Worker: addresses, and generation with the callers' adapters. Users are Durable Objects (user.mjs). */
import { ArgumentError, data, memoryStats } from "wasm-lora";
import { embeddedBase } from "./embedded.mjs";
import { generateBatch, generateOne } from "./generate.mjs";
import {
  answer,
  byMethod,
  checkFields,
  checkInteger,
  checkList,
  checkNumber,
  checkText,
  HttpError,
  readObject,
} from "./http.mjs";
import { LIMITS } from "./limits.mjs";

export { User } from "./user.mjs";

const ADDRESSES = [
  "POST /users/:id/rows (JSON Lines, or a list in JSON)",
  "POST /users/:id/train {steps}",
  "GET /users/:id/status",
  "GET /users/:id/adapter",
  "GET /users/:id/adapter/:file",
  "DELETE /users/:id",
  "POST /users/:id/generate {prompt or messages, maxNewTokens?, temperature?, seed?}",
  "POST /generate {prompts: [{user, prompt or messages, seed?}], maxNewTokens?, temperature?}",
];

export default {
  fetch(request, env) {
    return answer(() => {
      const url = new URL(request.url);
      const [, room, id, what, file, ...rest] = url.pathname.split("/");
      if (url.pathname === "/") return byMethod(request, { GET: about });
      if (url.pathname === "/generate")
        return byMethod(request, { POST: () => generate(request, env, generateForAll) });
      const known = room === "users" && rest.length === 0 && (file === undefined || what === "adapter");
      if (!known)
        throw new HttpError(
          404,
          "ERR_NOT_FOUND",
          `there is nothing at ${url.pathname}; there are ${ADDRESSES.join("; ")}.`,
        );
      const user = userOf(env, id);
      switch (what) {
        case "generate":
          return byMethod(request, { POST: () => generate(request, env, generateForUser, id) });
        case undefined:
        case "rows":
        case "train":
        case "status":
        case "adapter": {
          url.pathname = [what ?? "", file].filter((part) => part !== undefined).join("/");
          return user.fetch(new Request(url, request));
        }
        default:
          throw new HttpError(404, "ERR_NOT_FOUND", `a user has no ${what}; there are ${ADDRESSES.join("; ")}.`);
      }
    });
  },
};

async function about() {
  await embeddedBase();
  return { addresses: ADDRESSES, limits: LIMITS, memory: memoryStats() };
}

function userOf(env, id) {
  if (typeof id !== "string" || !/^[A-Za-z0-9_-]{1,64}$/.test(id))
    throw new ArgumentError(`a user's id has 1 to 64 letters, digits, - and _; got ${JSON.stringify(id ?? null)}.`);
  return env.USERS.get(env.USERS.idFromName(id));
}

let generations = 0;

/** Each generation takes memory for its keys and values, so that only so many run at a time. */
async function generate(request, env, handler, id) {
  if (generations >= LIMITS.generations)
    throw new HttpError(429, "ERR_BUSY", `${generations} requests are generating; try again.`, { "retry-after": "1" });
  generations++;
  try {
    return await handler(request, env, id);
  } finally {
    generations--;
  }
}

async function generateForUser(request, env, id) {
  const body = await readObject(request, ["prompt", "messages", "maxNewTokens", "temperature", "seed"]);
  const base = await embeddedBase();
  const prepared = await prepare(base, env, "", { ...body, user: id }, body);
  return { user: id, steps: prepared.steps, text: await generateOne(base, prepared) };
}

async function generateForAll(request, env) {
  const body = await readObject(request, ["prompts", "maxNewTokens", "temperature"]);
  const base = await embeddedBase();
  const prepared = await Promise.all(
    checkList("prompts", body.prompts, LIMITS.prompts).map((item, i) => {
      if (typeof item !== "object" || item === null)
        throw new ArgumentError(
          `prompts[${i}] must be an object with user, prompt or messages and, if you like, seed.`,
        );
      checkFields(`prompts[${i}]`, item, ["user", "prompt", "messages", "seed"]);
      return prepare(base, env, `prompts[${i}].`, item, body);
    }),
  );
  const texts = await generateBatch(base, prepared);
  return { texts: prepared.map(({ user, steps }, i) => ({ user, steps, text: texts[i] })) };
}

/** A request checked, with its prompt's tokens and its user's adapter. */
async function prepare(
  base,
  env,
  place,
  { user, prompt, messages, seed = 0 },
  { maxNewTokens = 32, temperature = 0.8 },
) {
  const ids = messages === undefined ? promptIds(base, place, prompt) : chatIds(base, place, messages, prompt);
  if (ids.length > LIMITS.promptTokens)
    throw new ArgumentError(`${place}prompt has ${ids.length} tokens; at most ${LIMITS.promptTokens} are read.`);
  checkInteger(`${place}seed`, seed, 0, Number.MAX_SAFE_INTEGER);
  checkInteger("maxNewTokens", maxNewTokens, 1, LIMITS.newTokens);
  checkNumber("temperature", temperature, 0, 10);
  const found = await userOf(env, user).adapter();
  if (!found)
    throw new HttpError(404, "ERR_NOT_FOUND", `there is no user ${user}; POST /users/${user}/rows makes one.`);
  const { version, steps, files } = found;
  return {
    user,
    steps,
    ids,
    seed,
    maxNewTokens,
    temperature,
    adapter: steps > 0 ? { name: `user-${user}`, version, files } : null,
  };
}

function promptIds(base, place, prompt) {
  checkLength(place, checkText(`${place}prompt`, prompt).length);
  return base.encode(prompt);
}

/** A chat is checked as a row of one would be. */
function chatIds(base, place, messages, prompt) {
  if (prompt !== undefined) throw new ArgumentError(`${place}prompt stands beside messages; expected one of them.`);
  checkLength(place, JSON.stringify(messages).length);
  const [example] = data.readExamples([{ value: { messages }, where: place.slice(0, -1) || "the request" }]);
  return base.encodeChat(example.messages);
}

function checkLength(place, characters) {
  if (characters > LIMITS.promptCharacters)
    throw new ArgumentError(
      `${place}prompt has ${characters} characters; at most ${LIMITS.promptCharacters} are read.`,
    );
}
