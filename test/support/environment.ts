/**
 * Tests, and what they start, find nothing in the environment of whoever runs them but where programs and temporary
 * files are: no colours or their absence, no terminal, language or time zone, no npm, no hub and no cache of models.
 */
const KEPT = /^(PATH|PATHEXT|HOME|USERPROFILE|TMPDIR|TEMP|TMP|SYSTEMROOT|NODE_V8_COVERAGE|WASM_LORA_(?!DEBUG).*)$/i;

for (const name of Object.keys(process.env)) if (!KEPT.test(name)) delete process.env[name];
// A test that means to ask a hub says which.
process.env["HF_HUB_OFFLINE"] = "1";
