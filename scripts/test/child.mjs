/**
 * Runs one test file for process.mjs: child.mjs <file> <pattern of names>. To the file,
 * this module is uvu (by the hook below): it registers everything with the real one, and tells the parent what each
 * test came to, which uvu's summary does not say. What uvu's `before` throws, for one, uvu itself swallows.
 */
import nodeModule from "node:module";
import { inspect } from "node:util";
import { pathToFileURL } from "node:url";

const here = import.meta.url;
const [file, pattern] = process.argv.slice(2);
const wanted = new RegExp(pattern ?? "");

globalThis.UVU_DEFER = 1;
globalThis.UVU_QUEUE = [[]];
const uvu = await import("uvu");

/** What waits for its `run()`, by suite; and whether anything was registered at all. */
const waiting = new Set();
let registered = 0;

const tell = (event, name, more = {}) => process.send({ event, name, ...more });
const fault = (name, message) => tell("fail", name, { message, difference: "", stack: "" });

function told(error) {
  if (!(error instanceof Error)) return { message: `thrown: ${inspect(error)}`, difference: "", stack: "" };
  const { name, message, stack = "", generatedMessage, operator, actual, expected } = error;
  // With words of the test's own, not every version of node:assert shows a difference; assert.ok has none.
  const isMute = generatedMessage === false && operator !== "==" && !/ !== |\+ actual - expected/.test(message);
  return {
    message: `${name}: ${message}`,
    difference: isMute ? `actual:   ${short(actual)}\nexpected: ${short(expected)}` : "",
    stack: stack.slice(stack.indexOf("\n    at ")),
  };
}
const short = (value) => inspect(value, { depth: 2, maxArrayLength: 20, maxStringLength: 1000 });

/** uvu's test of this suite. */
function recorded(real, suiteName) {
  const full = (name) => (suiteName ? `${suiteName}: ${name}` : name);
  const wait = () => waiting.add(suiteName || "the file");
  const add = (name, handler) => {
    registered++;
    if (!wanted.test(full(name))) return;
    wait();
    real(name, async (context) => {
      tell("start", full(name));
      try {
        await handler(context);
        tell("pass", full(name));
      } catch (error) {
        tell("fail", full(name), told(error));
      }
    });
  };
  const hook = (register, name) => (handler) => {
    wait();
    register(async (context) => {
      tell("start", full(name));
      try {
        await handler(context);
      } catch (error) {
        tell("fail", full(name), told(error));
        throw error;
      }
    });
  };
  add.before = hook(real.before, "before");
  add.before.each = hook(real.before.each, "before.each");
  add.after = hook(real.after, "after");
  add.after.each = hook(real.after.each, "after.each");
  add.only = (name, handler) => {
    add(name, handler);
    fault(full(name), "test.only leaves others out; the runner has --only");
  };
  add.skip = (name = "a test without a name") => {
    registered++;
    if (wanted.test(full(name))) tell("skip", full(name));
  };
  add.run = () => {
    waiting.delete(suiteName || "the file");
    real.run();
  };
  return add;
}

export const test = recorded(uvu.test, "");
export const suite = (name = "", state) => recorded(uvu.suite("", state), name);

async function run() {
  await import(pathToFileURL(file).href);
  for (const name of waiting) fault(name, "run() is not called after what is registered");
  if (registered === 0) fault("the file", "registers no test");
  for (const execute of globalThis.UVU_QUEUE[0]) {
    // Hooks that throw have been told.
    await Promise.resolve(execute()).catch(() => {});
  }
  tell("end");
}

/** Node 22.15 and later resolve in this thread; before, a module of its own does it in another one. */
const answer = (specifier, context, next) =>
  specifier === "uvu" ? { url: here, shortCircuit: true } : next(specifier, context);
if (nodeModule.registerHooks) nodeModule.registerHooks({ resolve: answer });
else {
  const source = `const here = ${JSON.stringify(here)}; export const resolve = ${answer};`;
  nodeModule.register(`data:text/javascript,${encodeURIComponent(source)}`);
}
// Not awaited: the file waits for this module.
void run();
