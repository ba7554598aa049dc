/**
 * A user: rows, training and adapter, in a Durable Object of their own. Training goes on in alarms, a few
 * steps each, and is saved after each, so that a restart loses nothing and other users have their turns.
 */
import { DurableObject } from "cloudflare:workers";
import { ArgumentError } from "wasm-lora";
import { embeddedBase } from "./embedded.mjs";
import { answer, byMethod, checkInteger, HttpError, isPassing, readObject } from "./http.mjs";
import { LIMITS } from "./limits.mjs";
import { packRows, readRows, unpackRows } from "./rows.mjs";
import { trainSlice, UNTRAINED } from "./train.mjs";

export class User extends DurableObject {
  /** `/<what>/<file>` of `/users/<id>/<what>/<file>`. */
  fetch(request) {
    const [, what, file] = new URL(request.url).pathname.split("/");
    return answer(() => {
      if (file !== undefined) return byMethod(request, { GET: () => this.#file(file) });
      switch (what) {
        case "rows":
          return byMethod(request, { POST: () => this.#addRows(request) });
        case "train":
          return byMethod(request, { POST: () => this.#train(request) });
        case "status":
          return byMethod(request, { GET: () => this.#status() });
        case "adapter":
          return byMethod(request, { GET: () => this.#listFiles() });
        default:
          return byMethod(request, { DELETE: () => this.#delete() });
      }
    });
  }

  /** For generation: { version, steps, files }, or null if there is no such user. A version never comes again. */
  adapter() {
    const user = this.#get("user");
    const { steps, files } = this.#state();
    return user ? { version: `${user.id}.${steps}`, steps, files } : null;
  }

  /** A slice of training. What it depends on is read after the last wait: the user may have gone meanwhile. */
  async alarm() {
    let wait = 0;
    try {
      this.#slice(await embeddedBase());
    } catch (error) {
      console.error(error);
      wait = this.#afterFailure(error);
    }
    if (this.#isTraining()) await this.ctx.storage.setAlarm(Date.now() + wait);
  }

  #slice(base) {
    const user = this.#get("user");
    const state = this.#state();
    const count = Math.min(LIMITS.stepsPerSlice, (user?.target ?? 0) - state.steps);
    if (count <= 0) return;
    const { files, checkpoint, ...progress } = trainSlice(base, this.#rows(), state, user.target, count);
    // Written together or not at all: nothing is awaited between.
    this.#put("progress", progress);
    this.#put("files", files);
    this.#put("checkpoint", checkpoint);
    if (user.failures > 0) this.#put("user", { ...user, failures: 0 });
  }

  /**
   * Milliseconds until the slice is tried again. What will not pass, or has failed too often, ends the training: the
   * adapter stays that of the last slice.
   */
  #afterFailure(error) {
    const user = this.#get("user");
    if (!user) return 0;
    const failures = (user.failures ?? 0) + 1;
    if (isPassing(error) && failures < LIMITS.attemptsPerSlice) {
      this.#put("user", { ...user, failures });
      return 1000 * 2 ** (failures - 1);
    }
    this.#put("user", {
      ...user,
      failures: 0,
      target: this.#progress().steps,
      error: `${error.name}: ${error.message}`,
    });
    return 0;
  }

  #isTraining() {
    return this.#progress().steps < (this.#get("user")?.target ?? 0);
  }

  async #addRows(request) {
    const base = await embeddedBase();
    const added = await readRows(request, base);
    const user = this.#get("user") ?? {
      id: crypto.randomUUID(),
      rows: 0,
      tokens: 0,
      scored: 0,
      truncated: 0,
      target: 0,
      error: null,
    };
    this.#refuseWhileTraining(user);
    const tokens = user.tokens + added.tokens;
    if (tokens > LIMITS.tokens)
      throw new HttpError(
        413,
        "ERR_TOO_LARGE",
        `the rows would have ${tokens} tokens; at most ${LIMITS.tokens} are kept for a user.`,
      );
    const rows = [...this.#rows(), ...added.rows];
    this.#put("rows", packRows(rows));
    this.#put("user", {
      ...user,
      rows: rows.length,
      tokens,
      scored: user.scored + added.scored,
      truncated: user.truncated + added.truncated,
    });
    return this.#status();
  }

  #rows() {
    const packed = this.#get("rows");
    return packed ? unpackRows(packed) : [];
  }

  async #train(request) {
    const { steps } = await readObject(request, ["steps"]);
    checkInteger("steps", steps, 1, LIMITS.stepsPerRequest);
    const user = this.#user();
    const { steps: done } = this.#progress();
    this.#refuseWhileTraining(user);
    if (done + steps > LIMITS.stepsPerUser)
      throw new ArgumentError(
        `steps must be at most ${LIMITS.stepsPerUser - done}, after the ${done} that are done; got ${steps}.`,
      );
    this.#put("user", { ...user, target: done + steps, error: null });
    await this.ctx.storage.setAlarm(Date.now());
    return Response.json(this.#status(), { status: 202 });
  }

  #status() {
    const { rows, tokens, scored, truncated, target, error } = this.#user();
    const { steps, losses } = this.#progress();
    return { rows, tokens, scored, truncated, steps, target, training: steps < target, error, losses };
  }

  #listFiles() {
    return { files: Object.entries(this.#files()).map(([name, bytes]) => ({ name, bytes: bytes.length })) };
  }

  #file(name) {
    const files = this.#files();
    if (!Object.hasOwn(files, name)) throw new HttpError(404, "ERR_NOT_FOUND", `the adapter has no file ${name}.`);
    return new Response(files[name], {
      headers: { "content-type": name.endsWith(".json") ? "application/json" : "application/octet-stream" },
    });
  }

  #files() {
    this.#user();
    const files = this.#get("files");
    if (!files) throw new HttpError(409, "ERR_STATE", "there is no adapter yet; POST .../train makes one.");
    return files;
  }

  async #delete() {
    await this.ctx.storage.deleteAll(); // the alarm too
    return new Response(null, { status: 204 });
  }

  #user() {
    const user = this.#get("user");
    if (!user) throw new HttpError(404, "ERR_NOT_FOUND", "there is no such user; POST .../rows makes one.");
    return user;
  }

  #refuseWhileTraining({ target }) {
    const { steps } = this.#progress();
    if (steps < target)
      throw new HttpError(
        409,
        "ERR_STATE",
        `training is at step ${steps} of ${target}; wait for it, or DELETE the user.`,
      );
  }

  /** What trainSlice takes and gives; kept in three parts, since a status needs only the smallest. */
  #state() {
    return {
      ...this.#progress(),
      files: this.#get("files") ?? UNTRAINED.files,
      checkpoint: this.#get("checkpoint") ?? UNTRAINED.checkpoint,
    };
  }

  #progress() {
    const { steps, losses } = UNTRAINED;
    return this.#get("progress") ?? { steps, losses };
  }

  #get(key) {
    return this.ctx.storage.kv.get(key);
  }
  #put(key, value) {
    this.ctx.storage.kv.put(key, value);
  }
}
