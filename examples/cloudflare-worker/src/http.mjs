/** JSON in, JSON out; a thrown error becomes the answer that fits it. */
import { ArgumentError, DisposedError, EngineError, FormatError, OutOfMemoryError } from "wasm-lora";
import { LIMITS } from "./limits.mjs";

/** What is wrong with a request beside its values. */
export class HttpError extends Error {
  /** @param details stand in the answer beside code and message */
  constructor(status, code, message, headers = {}, details = {}) {
    super(message);
    this.name = "HttpError";
    Object.assign(this, { status, code, headers, details });
  }
}

/** Runs the handler and answers with what it returns (a Response, or a value for JSON) or throws. */
export async function answer(handler) {
  try {
    const result = await handler();
    return result instanceof Response ? result : Response.json(result);
  } catch (error) {
    const status = statusOf(error);
    if (status === 500) console.error(error);
    const { code, message } =
      status === 500
        ? { code: "ERR_INTERNAL", message: "Error: the Worker failed; its log says why." }
        : { code: error.code, message: error instanceof HttpError ? error.message : `${error.name}: ${error.message}` };
    const headers = status === 503 ? { "retry-after": "1" } : (error?.headers ?? {});
    return Response.json({ error: { code, message, ...error?.details } }, { status, headers });
  }
}

function statusOf(error) {
  if (error instanceof HttpError) return error.status;
  if (error instanceof ArgumentError || error instanceof FormatError) return 400;
  if (isPassing(error)) return 503;
  return 500;
}

/**
 * Whether the same may succeed a little later: memory that others used is free again, and a trapped engine is followed
 * by another.
 */
export function isPassing(error) {
  return [OutOfMemoryError, EngineError, DisposedError].some((type) => error instanceof type);
}

/** The handler of the request's method. */
export function byMethod(request, handlers) {
  if (Object.hasOwn(handlers, request.method)) return handlers[request.method]();
  const allow = Object.keys(handlers).join(", ");
  throw new HttpError(405, "ERR_METHOD", `${request.method} is not for this address; it takes ${allow}.`, { allow });
}

/**
 * The body as a JSON object with no fields but these. It must say that it is JSON: as text/plain any web page could
 * have its visitors' browsers post it, without a preflight request.
 */
export async function readObject(request, fields) {
  const type = request.headers.get("content-type");
  if (!/^application\/json *(;|$)/i.test(type ?? "")) {
    throw new HttpError(
      415,
      "ERR_CONTENT_TYPE",
      `the request's content-type must be application/json; got ${type === null ? "none" : show(type)}.`,
    );
  }
  const bytes = await readBody(request);
  let value;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new ArgumentError(`the body is not JSON in UTF-8: ${cause.message}.`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new ArgumentError(`the body must be a JSON object with ${fields.join(", ")}.`);
  checkFields("the body", value, fields);
  return value;
}

/** No more of it is read than is allowed. */
export async function readBody(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request.body ?? []) {
    length += chunk.length;
    if (length > LIMITS.bodyBytes)
      throw new HttpError(413, "ERR_TOO_LARGE", `the body is longer than ${LIMITS.bodyBytes} bytes.`);
    chunks.push(chunk);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

export function checkFields(place, value, fields) {
  const stray = Object.keys(value).find((key) => !fields.includes(key));
  if (stray !== undefined)
    throw new ArgumentError(`${place} has a field ${JSON.stringify(stray)}; expected ${fields.join(", ")}.`);
}

export function checkText(name, value) {
  if (typeof value !== "string" || value.trim() === "")
    throw new ArgumentError(`${name} must be a text that is not empty; got ${show(value)}.`);
  return value;
}

export function checkInteger(name, value, from, to) {
  if (!Number.isSafeInteger(value) || value < from || value > to)
    throw new ArgumentError(`${name} must be an integer in ${from} .. ${to}; got ${show(value)}.`);
  return value;
}

export function checkNumber(name, value, from, to) {
  if (typeof value !== "number" || !(value >= from && value <= to))
    throw new ArgumentError(`${name} must be a number in ${from} .. ${to}; got ${show(value)}.`);
  return value;
}

/** A list of 1 to `most` items. */
export function checkList(name, value, most) {
  if (!Array.isArray(value) || value.length === 0 || value.length > most) {
    throw new ArgumentError(
      `${name} must be a list of 1 to ${most}; got ${Array.isArray(value) ? `${value.length} items` : show(value)}.`,
    );
  }
  return value;
}

function show(value) {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}
