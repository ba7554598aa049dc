// Before `deno publish`: JSR finds a module's types by a comment in its JavaScript, not by its name.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../dist/src", import.meta.url));
for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".js"))) {
  const file = `${folder}/${name}`, code = readFileSync(file, "utf8"), comment = `/* @ts-self-types="./${basename(name, ".js")}.d.ts" */ `;
  // On the first line, so that the source map's lines stay right.
  if (!code.startsWith(comment)) writeFileSync(file, comment + code);
}
