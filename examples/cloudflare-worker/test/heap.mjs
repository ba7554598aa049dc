/** What an isolate takes, asked of V8's inspector while it works. */
import WebSocket from "ws";

/**
 * Asks ten times a second. `most` has the largest of each: heapBytes, and bufferBytes (without linear memory, which V8
 * does not count there).
 */
export async function watchHeap(inspector) {
  const [{ webSocketDebuggerUrl }] = await (await fetch(`${inspector}/json`)).json();
  const socket = new WebSocket(webSocketDebuggerUrl);
  const most = { heapBytes: 0, bufferBytes: 0 };
  await new Promise((done, fail) => {
    socket.once("open", done).once("error", fail);
  });
  socket.on("message", (message) => {
    const { result } = JSON.parse(message);
    if (!result) return;
    most.heapBytes = Math.max(most.heapBytes, result.usedSize + result.embedderHeapUsedSize);
    most.bufferBytes = Math.max(most.bufferBytes, result.backingStorageSize);
  });
  let id = 0;
  const timer = setInterval(() => socket.send(JSON.stringify({ id: ++id, method: "Runtime.getHeapUsage" })), 100);
  return {
    most,
    async stop() {
      clearInterval(timer);
      socket.close();
      await new Promise((done) => {
        socket.once("close", done);
      });
    },
  };
}
