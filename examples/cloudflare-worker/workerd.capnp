# The Worker in workerd on this machine; server.mjs makes runs/worker. On Cloudflare: wrangler.jsonc.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "worker", worker = .worker),
    (name = "state", disk = (path = "runs/state", writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8787", http = (), service = "worker")],
);

const worker :Workerd.Worker = (
  compatibilityDate = "2026-04-01",
  modules = [
    (name = "worker.js", esModule = embed "runs/worker/worker.js"),
    (name = "wasm-lora.wasm", wasm = embed "runs/worker/wasm-lora.wasm"),
    (name = "model.safetensors", data = embed "runs/worker/model.safetensors"),
  ],
  bindings = [(name = "USERS", durableObjectNamespace = "User")],
  durableObjectNamespaces = [(className = "User", uniqueKey = "wasm-lora-example-user", enableSql = true)],
  durableObjectStorage = (localDisk = "state"),
);
