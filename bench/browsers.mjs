/** The sections in browsers, each in a fresh worker of a page that the matrix's driver opens. */
import { installAndBuild } from "../test/matrix/install.mjs";
import { bundleSections } from "./build.mjs";

/** Their names in the matrix. */
export const BROWSERS = ["Chromium", "Firefox ESR", "WebKitGTK"];

/** @returns { name: { environment, sections } }. @param onSection called with browser and section before each */
export async function runInBrowsers(wanted, sections, options, onSection) {
  installAndBuild();
  const { RUNTIMES } = await import("../test/matrix/runtimes.mjs");
  await bundleSections(sections, options);
  const results = {};
  for (const { name, version, open } of RUNTIMES) {
    if (!wanted.includes(name)) continue;
    const installed = await version();
    if (installed === null) throw new Error(`${name} is not installed`);
    const page = await open();
    const result = (results[name] = { environment: null, sections: {} });
    try {
      for (const section of sections) {
        onSection(name, section);
        const { environment, error, ...found } = await page.run(`bench/${section}`);
        if (error) throw new Error(`${name}, ${section}: ${error}`);
        result.environment = { ...environment, engine: `${name} ${installed}` };
        result.sections[section] = found;
      }
    } finally {
      await page.close();
    }
  }
  return results;
}
