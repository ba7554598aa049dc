/** Installs what is missing (npm packages here and at the root, Debian's browsers) and builds the library. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const root = fileURLToPath(new URL("../../", import.meta.url));

/** Debian's package for each file. */
const DEBIAN = {
  "/usr/bin/chromium": "chromium",
  "/usr/bin/firefox-esr": "firefox-esr",
  "/usr/bin/WebKitWebDriver": "webkit2gtk-driver",
  "/usr/bin/xvfb-run": "xvfb",
  "/usr/bin/xauth": "xauth",
};

function run(command, args, cwd = root) {
  console.log(`$ ${command} ${args.join(" ")}`);
  return (
    spawnSync(command, args, { cwd, stdio: "inherit", env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } })
      .status === 0
  );
}

/** A browser that cannot be installed shows as missing later. */
export function installAndBuild() {
  for (const folder of [root, here]) {
    if (!existsSync(`${folder}/node_modules`) && !run("npm", ["ci", "--no-audit", "--no-fund"], folder))
      throw new Error(`npm ci failed in ${folder}`);
  }
  if (!run("npm", ["run", "--silent", "build"])) throw new Error("the build failed");
  const packages = Object.entries(DEBIAN)
    .filter(([file]) => !existsSync(file))
    .map(([, name]) => name);
  if (packages.length === 0) return;
  if (!existsSync("/usr/bin/apt-get") || process.getuid() !== 0) {
    console.log(`These Debian packages are missing, and only root can install them: ${packages.join(" ")}`);
    return;
  }
  run("apt-get", ["update", "-q"]);
  run("apt-get", ["install", "-qy", "--no-install-recommends", ...packages]);
}
