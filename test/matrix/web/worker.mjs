/** Runs the bundle whose address it is sent and answers with the result. */
onmessage = async ({ data }) => {
  try {
    const { run } = await import(data);
    postMessage(await run());
  } catch (error) {
    postMessage({ error: `${error}\n${error.stack}` });
  }
};
