/** Shows the digest, or the fault, where the test reads it. */
export function show(result) {
  result
    .then(
      (digest) => ["digest", digest],
      (error) => ["fault", String(error)],
    )
    .then(([id, text]) => {
      const output = document.createElement("output");
      output.id = id;
      output.textContent = text;
      document.body.append(output);
    });
}
