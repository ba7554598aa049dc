/** Runs one bundle in Node, Deno or Bun: child.mjs <bundle>. The result is the last line of stdout. */
let result;
try {
  const { run } = await import(process.argv[2]);
  result = await run();
} catch (error) {
  result = { error: error.stack ?? String(error) };
}
process.stdout.write(`\n${JSON.stringify(result)}\n`);
