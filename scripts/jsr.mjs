/**
 * Before `deno publish`: JSR finds a module's types by a comment in its JavaScript, not by its name, and takes no
 * declarations of global names, which are for projects with an older library; Deno's has them.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../dist/src", import.meta.url));
function rewrite(file, change) {
  const before = readFileSync(file, "utf8");
  const after = change(before);
  if (after !== before) writeFileSync(file, after);
}

for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
  const comment = `/* @ts-self-types="./${basename(name, ".js")}.d.ts" */ `;
  // On the first line, so that the source map's lines stay right.
  if (name.endsWith(".js")) rewrite(`${folder}/${name}`, (code) => (code.startsWith(comment) ? code : comment + code));
  if (name.endsWith(".d.ts"))
    rewrite(`${folder}/${name}`, (code) => code.replace(/^declare global \{\n[^]*?^\}\n/gm, ""));
}
