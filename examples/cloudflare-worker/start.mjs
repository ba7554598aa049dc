/** npm start: the Worker on this machine; PORT (8787 by default) and STATE (runs/state) may be set. */
import { fileURLToPath } from "node:url";
import { startWorker } from "./server.mjs";

const state = process.env.STATE ?? fileURLToPath(new URL("runs/state", import.meta.url));
const worker = await startWorker({ port: Number(process.env.PORT ?? 8787), state }).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
const post = (path, body) =>
  `curl -H 'content-type: application/json' ${worker.url}${path} -d '${JSON.stringify(body)}'`;
console.log(`
The Worker runs at ${worker.url}; users are kept in ${state}. Ctrl-C ends it. Try:

  ${post("/users/anna/rows", [
    { text: "The whale rose, and the boats were lowered." },
    { text: "We chased the white whale round the Horn." },
  ])}
  curl -H 'content-type: application/jsonl' ${worker.url}/users/ben/rows --data-binary @rows.jsonl
  ${post("/users/anna/generate", { prompt: "The whale" })}
  ${post("/users/anna/train", { steps: 40 })}
  curl ${worker.url}/users/anna/status
  ${post("/users/anna/generate", { prompt: "The whale" })}
  curl -O ${worker.url}/users/anna/adapter/adapter_model.safetensors
`);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => worker.stop());
await worker.ended;
