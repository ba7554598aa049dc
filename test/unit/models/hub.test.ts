/** Models of the hub by fetch, without a server: what is kept in Cache storage, what connections do to a download. */
import assert from "node:assert/strict";
import { suite } from "uvu";
import { FileError, FormatError, init, io, models } from "../../../src/index.js";
import { hubFolder } from "../../../src/models/hub.js";
import { readStreamed } from "../../../src/io/streamed_file.js";
import { LLAMA } from "../../support/language_models.js";
import { says } from "../../support/refuses.js";

await init();

const ENDPOINT = "https://hub.example";
const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const CONFIG = {
  model_type: "llama",
  vocab_size: LLAMA.vocabSize,
  hidden_size: LLAMA.hiddenSize,
  intermediate_size: LLAMA.intermediateSize,
  num_hidden_layers: LLAMA.numHiddenLayers,
  num_attention_heads: LLAMA.numAttentionHeads,
  num_key_value_heads: LLAMA.numKeyValueHeads,
  max_position_embeddings: LLAMA.maxPositionEmbeddings,
  tie_word_embeddings: true,
};
const model = new models.Llama(LLAMA);
const state = model.stateDict();
model.dispose();
const FILES: Record<string, Uint8Array> = {
  "config.json": new TextEncoder().encode(JSON.stringify(CONFIG)),
  "model.safetensors": io.serializeSafetensors(
    [...state].map(([name, entry]) => ({ name, dtype: "F32" as const, ...entry })),
  ),
  "README.md": new Uint8Array(9),
};
const WEIGHTS = FILES["model.safetensors"]!;

/** What the hub does next; each fault once. */
type Fault = number | "down" | { cut: number } | "whole" | { headers: Record<string, string> };
const hub = { files: FILES, commit: COMMIT, faults: [] as Fault[], asked: [] as string[] };

function answer(url: string, range: string | null): Response {
  const fault = hub.faults.shift();
  hub.asked.push(`${url.slice(ENDPOINT.length)}${range === null ? "" : ` ${range}`}`);
  if (fault === "down") throw new TypeError("no connection");
  if (typeof fault === "number") return new Response(null, { status: fault });
  if (url.startsWith(`${ENDPOINT}/api/models/org/name/revision/`)) {
    const siblings = Object.entries(hub.files).map(([rfilename, { length }]) => ({ rfilename, size: length }));
    return new Response(JSON.stringify({ sha: hub.commit, siblings }));
  }
  const file = url.split("/").at(-1)!;
  const bytes = hub.files[file];
  if (!bytes || url !== `${ENDPOINT}/org/name/resolve/${hub.commit}/${file}`)
    return new Response(null, { status: 404 });
  // Whatever was asked for, it begins at its start.
  if (typeof fault === "object" && "headers" in fault)
    return new Response(bytes.slice(), { status: 206, headers: fault.headers });
  const from = fault === "whole" ? 0 : Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  const body = bytes.slice(from, typeof fault === "object" ? from + fault.cut : undefined);
  const headers = { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` };
  return new Response(body, from > 0 ? { status: 206, headers } : {});
}

/** A Cache storage of its own, so that every runtime has one. */
class Shelf {
  readonly entries = new Map<string, Uint8Array>();
  room = Infinity;
  match = async (url: string): Promise<Response | undefined> => {
    const bytes = this.entries.get(url);
    return bytes && new Response(bytes.slice());
  };
  put = async (url: string, response: Response): Promise<void> => {
    const bytes = new Uint8Array(await response.arrayBuffer());
    if (bytes.length > this.room) throw new Error("QuotaExceededError");
    this.entries.set(url, bytes);
  };
}

const { fetch } = globalThis;
const caches = Object.getOwnPropertyDescriptor(globalThis, "caches");
function put<T>(name: string, value: T): void {
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}
/** @param shelf undefined: there is no Cache storage */
async function withHub<T>(shelf: Shelf | undefined, faults: Fault[], work: () => Promise<T>): Promise<T> {
  Object.assign(hub, { faults, asked: [] });
  put("fetch", async (url: string | URL, init?: RequestInit) =>
    answer(String(url), new Headers(init?.headers).get("range")),
  );
  put("caches", shelf && { open: async () => shelf });
  try {
    return await work();
  } finally {
    put("fetch", fetch);
    if (caches) Object.defineProperty(globalThis, "caches", caches);
    else Reflect.deleteProperty(globalThis, "caches");
  }
}
const PART = 1000;
const read = async (revision?: string): Promise<Uint8Array> => {
  const folder = await hubFolder({ repo: "org/name", revision }, ENDPOINT, undefined, PART);
  return readStreamed((await folder.open("model.safetensors", false))!);
};
const AT = `/org/name/resolve/${COMMIT}/model.safetensors`;
const MAIN = "/api/models/org/name/revision/main?blobs=true";

const hubs = suite("the hub by fetch");
hubs.after(() => io.memoryFiles.clear());

hubs("fetchModel takes org/name, with what is its and nothing else", async () => {
  for (const shelf of [new Shelf(), undefined]) {
    await withHub(shelf, [], async () => {
      const loaded = await models.fetchModel("org/name", { endpoint: ENDPOINT });
      assert.equal(loaded.path, `memory:${ENDPOINT}/org/name/resolve/${COMMIT}`);
      assert.deepEqual(loaded.model.stateDict(), state);
      loaded.model.dispose();
      assert.ok(!hub.asked.some((url) => /README|tokenizer/.test(url)), String(hub.asked));
    });
  }
});

hubs("a second visit downloads nothing; without a connection it is as it was", async () => {
  const shelf = new Shelf();
  const visit = (faults: Fault[]): Promise<void> =>
    withHub(shelf, faults, async () => {
      const { model } = await models.fetchModel("org/name", { endpoint: `${ENDPOINT}/` });
      assert.deepEqual(model.stateDict(), state);
      model.dispose();
    });
  await visit([]);
  await visit([]);
  assert.deepEqual(hub.asked, [MAIN]);
  await visit(["down"]);
  assert.deepEqual(hub.asked, [MAIN]);
});

hubs("a commit that is there is not asked for; another commit is downloaded", async () => {
  const shelf = new Shelf();
  await withHub(shelf, [], () => read(COMMIT));
  await withHub(shelf, [], async () => assert.deepEqual(await read(COMMIT), WEIGHTS));
  assert.deepEqual(hub.asked, []);
  const other = "f".repeat(40);
  hub.commit = other;
  try {
    await withHub(shelf, [], () => read());
    assert.deepEqual(hub.asked, [MAIN, `/org/name/resolve/${other}/model.safetensors`]);
  } finally {
    hub.commit = COMMIT;
  }
});

hubs("a connection that ends is taken up where it ended", async () => {
  for (const shelf of [new Shelf(), undefined]) {
    await withHub(shelf, [200, { cut: 2500 }, { cut: 10 }, 503, "whole"].slice(1) as Fault[], async () => {
      hub.faults.unshift({ cut: 1e9 });
      assert.deepEqual(await read(), WEIGHTS);
    });
    const ranges = ["", " bytes=2500-", " bytes=2510-", " bytes=2510-"];
    assert.deepEqual(hub.asked, [MAIN, ...ranges.map((range) => AT + range)]);
  }
});

hubs("the next visit goes on behind the last whole part", async () => {
  const shelf = new Shelf();
  const down: Fault[] = ["down", "down", "down", "down", "down"];
  await withHub(shelf, [{ cut: 1e9 }, { cut: 2500 }, ...down], () =>
    assert.rejects(read(), says(FileError, `after 2500 of ${WEIGHTS.length} bytes`, "no connection")),
  );
  assert.deepEqual([...shelf.entries.keys()].slice(1), [`${ENDPOINT}${AT}?from=0`, `${ENDPOINT}${AT}?from=1000`]);
  await withHub(shelf, [], async () => assert.deepEqual(await read(), WEIGHTS));
  assert.deepEqual(hub.asked, [MAIN, `${AT} bytes=2000-`]);
});

hubs("a gap is filled, and no more", async () => {
  const shelf = new Shelf();
  await withHub(shelf, [], () => read());
  shelf.entries.delete(`${ENDPOINT}${AT}?from=3000`);
  shelf.entries.set(`${ENDPOINT}${AT}?from=5000`, new Uint8Array(7));
  await withHub(shelf, [], async () => assert.deepEqual(await read(), WEIGHTS));
  assert.deepEqual(hub.asked, [MAIN, `${AT} bytes=3000-`, `${AT} bytes=5000-`]);
});

hubs("an answer from elsewhere in the file is refused, and not kept", async () => {
  const { length } = WEIGHTS;
  for (const headers of [
    { "content-range": `bytes 0-${length - 1}/${length}` },
    { "content-range": "bytes */*" },
    { "content-length": String(length) },
  ] as Record<string, string>[]) {
    const shelf = new Shelf();
    await withHub(shelf, [{ cut: 1e9 }, { cut: 2500 }, { headers }], () =>
      assert.rejects(read(), says(FormatError, `${ENDPOINT}${AT}`, "from 2500 on", Object.values(headers)[0]!)),
    );
    assert.deepEqual([...shelf.entries.keys()].slice(1), [`${ENDPOINT}${AT}?from=0`, `${ENDPOINT}${AT}?from=1000`]);
    await withHub(shelf, [], async () => assert.deepEqual(await read(), WEIGHTS));
  }
});

hubs("from any byte on", async () => {
  const shelf = new Shelf();
  await withHub(shelf, [], async () => {
    const folder = await hubFolder({ repo: "org/name", revision: undefined }, ENDPOINT, undefined, PART);
    const file = (await folder.open("model.safetensors", false))!;
    for (const from of [0, 1, 999, 1000, 1001, 2345, WEIGHTS.length - 1, WEIGHTS.length]) {
      const bytes: number[] = [];
      for await (const part of file.stream(from)) bytes.push(...part);
      assert.deepEqual(bytes, [...WEIGHTS.subarray(from)], `from ${from}`);
    }
  });
});

hubs("where there is no room, nothing is kept", async () => {
  const shelf = new Shelf();
  shelf.room = 500;
  await withHub(shelf, [], async () => assert.deepEqual(await read(), WEIGHTS));
  assert.deepEqual([...shelf.entries.keys()], [ENDPOINT + MAIN]);
});

hubs("what is not there or not permitted says so, and what to do", async () => {
  for (const status of [401, 403, 404])
    await withHub(new Shelf(), [status], () =>
      assert.rejects(read(), says(FileError, String(status), "HF_TOKEN", "org/name")),
    );
  await withHub(new Shelf(), ["down", "down"], () =>
    assert.rejects(read(), says(FileError, "no connection", "connect-src")),
  );
  await withHub(new Shelf(), [], async () => {
    const folder = await hubFolder({ repo: "org/name", revision: "main" }, ENDPOINT, undefined);
    await assert.rejects(
      folder.open("pytorch_model.bin", false),
      says(FileError, "org/name@main", "pytorch_model.bin"),
    );
  });
  const { files } = hub;
  hub.files = { ...files, "model.safetensors": WEIGHTS.subarray(0, 5000) };
  const shelf = new Shelf();
  await withHub(shelf, [], () => read());
  hub.files = files;
  shelf.entries.delete(`${ENDPOINT}${AT}?from=4000`);
  await withHub(shelf, ["down"], () => assert.rejects(read(), says(FormatError, "longer than the 5000 bytes")));
});

hubs("a listing without an end is refused", async () => {
  const block = new Uint8Array(1 << 20).fill(0x20);
  let sent = 0;
  await withHub(new Shelf(), [], async () => {
    put(
      "fetch",
      async () =>
        new Response(
          new ReadableStream({
            pull: (controller) => {
              sent++;
              controller.enqueue(block);
              if (sent === 200) controller.close();
            },
          }),
        ),
    );
    await assert.rejects(read(), says(FormatError, MAIN, "longer than 134217728 bytes"));
    assert.ok(sent < 140, `${sent} MB were read`);
  });
});

hubs("a signal ends it", async () => {
  await withHub(new Shelf(), [], async () => {
    const controller = new AbortController();
    const onProgress = (): void => controller.abort(new Error("enough"));
    put("fetch", async (url: string, { signal }: RequestInit) => {
      if (signal?.aborted) throw signal.reason;
      return answer(url, null);
    });
    await assert.rejects(
      models.fetchModel("org/name", { endpoint: ENDPOINT, signal: controller.signal, onProgress }),
      /enough/,
    );
  });
});

hubs.run();
