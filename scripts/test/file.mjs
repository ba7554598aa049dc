/**
 * Runs one test file for scripts/test.mjs, in a process of its own: file.mjs <file> [pattern of names]. To the file,
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
const waiting = new Map();
let registered = 0;

const tell = (event, name, more = {}) => process.send({ event, name, ...more });

function told(error) {
  const isError = error instanceof Error;
  const { code, generatedMessage = true, actual, expected } = isError ? error : {};
  return {
    message: isError ? `${error.name}: ${error.message}` : `thrown: ${inspect(error)}`,
    stack: (isError && error.stack?.slice(error.stack.indexOf("\n    at "))) || "",
    // With a message of the test's own, node:assert shows no difference.
    difference:
      code === "ERR_ASSERTION" && !generatedMessage && (actual !== undefined || expected !== undefined)
        ? `actual:   ${short(actual)}\nexpected: ${short(expected)}`
        : "",
  };
}
const short = (value) => inspect(value, { depth: 2, maxArrayLength: 20, maxStringLength: 1000 });

/** uvu's test of this suite. */
function recorded(real, suiteName) {
  const full = (name) => (suiteName ? `${suiteName}: ${name}` : name);
  const wait = () => waiting.set(full("run() was not called"), real);
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
    tell("fail", full(name), { message: "test.only leaves the others out: use the runner's --only", stack: "" });
  };
  add.skip = (name = "a test without a name") => {
    registered++;
    if (wanted.test(full(name))) tell("skip", full(name));
  };
  add.run = () => {
    waiting.delete(full("run() was not called"));
    real.run();
  };
  return add;
}

export const test = recorded(uvu.test, "");
export const suite = (name = "", state) => recorded(uvu.suite("", state), name);

async function run() {
  await import(pathToFileURL(file).href);
  for (const name of waiting.keys())
    tell("fail", name, { message: "tests were registered that do not run", stack: "" });
  if (registered === 0) tell("fail", "no tests", { message: "the file registers no test", stack: "" });
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
