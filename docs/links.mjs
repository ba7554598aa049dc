/** Where the site's links lead. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";

const REPOSITORY = /^https:\/\/github\.com\/wasm-lora\/wasm-lora\/(?:blob|tree)\/main\/([^#]*)/;

const unescape = (text) => text.replaceAll("&amp;", "&").replaceAll("&quot;", '"').replaceAll("&#39;", "'");

/** The values of href and src, and of id and name, in a page. */
function attributes(html, names) {
  // Scripts and comments hold text that looks like markup.
  const markup = html.replace(/<!--[^]*?-->/g, "").replace(/(<script\b[^>]*>)[^]*?<\/script>/g, "$1");
  return [...markup.matchAll(new RegExp(`\\s(?:${names})="([^"]*)"`, "g"))].map(([, value]) => unescape(value));
}

/**
 * Links within the site must be relative and lead to a file, and to an element of it if they name one; those to the
 * repository must name what is in it. Others are not looked up.
 * @returns a line for each that does not
 */
export function deadLinks(site, root) {
  const pages = readdirSync(site, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".html"));
  const anchors = new Map();
  const dead = [];
  const anchorsOf = (file) => {
    if (!anchors.has(file)) anchors.set(file, new Set(attributes(readFileSync(file, "utf8"), "id|name")));
    return anchors.get(file);
  };
  for (const page of pages) {
    const file = join(site, page);
    for (const link of new Set(attributes(readFileSync(file, "utf8"), "href|src"))) {
      const say = (why) => dead.push(`${page}: ${link}: ${why}`);
      const inRepository = REPOSITORY.exec(link);
      if (inRepository && !existsSync(join(root, decodeURIComponent(inRepository[1])))) say("is not in the repository");
      if (/^(https?:|mailto:|data:)/.test(link) || link === "" || link === "#") continue;
      if (link.startsWith("/")) {
        say("is not relative: it leads astray on a host that has the site in a folder");
        continue;
      }
      const [path, anchor] = link.split("#");
      const at = decodeURIComponent(path.split("?")[0]);
      let target = at === "" ? file : join(dirname(file), at);
      if (!existsSync(target) || relative(site, target).startsWith("..")) {
        say("does not exist");
        continue;
      }
      if (statSync(target).isDirectory()) target = join(target, "index.html");
      if (anchor && target.endsWith(".html") && !anchorsOf(target).has(decodeURIComponent(anchor)))
        say("has no such place");
    }
  }
  return dead;
}
