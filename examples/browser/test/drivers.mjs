/**
 * Three browsers behind the same few verbs: Chromium by the DevTools protocol and Firefox by WebDriver BiDi, both
 * through puppeteer-core; WebKitGTK by WebDriver through selenium-webdriver. Debian: chromium firefox-esr
 * webkit2gtk-driver xvfb. CHROMIUM, FIREFOX, WEBKIT_DRIVER and MINI_BROWSER name other paths.
 */
import { spawn } from "node:child_process";
import { accessSync, constants, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import puppeteer from "puppeteer-core";
import { Browser, Builder, By, Capabilities, Key } from "selenium-webdriver";
import { test } from "uvu";

/** @throws with the package to install */
function need(path, pkg) {
  try {
    accessSync(path, constants.X_OK);
  } catch {
    throw new Error(`${path} is missing. On Debian: apt-get install ${pkg}`);
  }
  return path;
}

const viaPuppeteer = (options) => async () => {
  const browser = await puppeteer.launch({
    headless: true,
    executablePath: need(options.path, options.pkg),
    browser: options.browser,
    args: options.args,
  });
  const page = await browser.newPage();
  page.setDefaultTimeout(120000);
  const element = (selector) => page.waitForSelector(selector);
  return {
    version: await browser.version(),
    page,
    goto: (url) => page.goto(url),
    reload: () => page.reload(),
    evaluate: (fn, ...args) => page.evaluate(fn, ...args),
    click: (selector) => page.click(selector),
    press: (key) => page.keyboard.press(key),
    type: (text) => page.keyboard.type(text),
    setFiles: async (selector, paths) => (await element(selector)).uploadFile(...paths),
    resize: (width, height) => page.setViewport({ width, height, deviceScaleFactor: 1 }),
    screenshot: async (path) => {
      await page.screenshot({ path, fullPage: true });
    },
    close: () => browser.close(),
  };
};

async function webkit() {
  const driverPath = need(process.env.WEBKIT_DRIVER ?? "/usr/bin/WebKitWebDriver", "webkit2gtk-driver");
  const binary = need(
    process.env.MINI_BROWSER ?? "/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser",
    "webkit2gtk-driver",
  );
  const xvfb = need("/usr/bin/xvfb-run", "xvfb");
  const port = await freePort();
  // A group of its own: it ends with the driver and the display server that xvfb-run starts.
  const driver = spawn(xvfb, ["-a", "-s", "-screen 0 1600x4000x24", driverPath, `--port=${port}`], {
    detached: true,
    stdio: "ignore",
  });
  const stop = () => {
    try {
      process.kill(-driver.pid);
    } catch {
      /* it has ended */
    }
  };
  try {
    await listening(port);
    const capabilities = new Capabilities({ browserName: Browser.SAFARI });
    capabilities.set("browserName", "MiniBrowser");
    capabilities.set("webkitgtk:browserOptions", { binary, args: ["--automation"] });
    const session = await new Builder()
      .usingServer(`http://127.0.0.1:${port}`)
      .withCapabilities(capabilities)
      .disableEnvironmentOverrides()
      .build();
    await session.manage().setTimeouts({ script: 120000 });
    const find = (selector) => session.findElement(By.css(selector));
    return {
      version: `WebKitGTK ${(await session.getCapabilities()).get("browserVersion")}`,
      goto: (url) => session.get(url),
      reload: () => session.navigate().refresh(),
      evaluate: (fn, ...args) => session.executeScript(`return (${fn}).apply(null, arguments)`, ...args),
      click: async (selector) => (await find(selector)).click(),
      press: (key) =>
        session
          .actions()
          .sendKeys(Key[key.toUpperCase()] ?? (key === "Space" ? " " : key))
          .perform(),
      type: (text) => session.actions().sendKeys(text).perform(),
      setFiles: async (selector, paths) => (await find(selector)).sendKeys(paths.join("\n")),
      resize: (width, height) => session.manage().window().setRect({ x: 0, y: 0, width, height }),
      screenshot: async (path) => writeFileSync(path, await session.takeScreenshot(), "base64"),
      close: () => session.quit().finally(stop),
    };
  } catch (error) {
    stop();
    throw error;
  }
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function listening(port) {
  for (let attempt = 0; attempt < 100; attempt++) {
    if (
      await fetch(`http://127.0.0.1:${port}/status`).then(
        () => true,
        () => false,
      )
    )
      return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`WebKitWebDriver did not start on port ${port}.`);
}

const BROWSERS = {
  // Chromium's sandbox does not start for root, as in containers.
  chromium: viaPuppeteer({
    path: process.env.CHROMIUM ?? "/usr/bin/chromium",
    pkg: "chromium",
    browser: "chrome",
    args: ["--no-sandbox"],
  }),
  firefox: viaPuppeteer({
    path: process.env.FIREFOX ?? "/usr/bin/firefox-esr",
    pkg: "firefox-esr",
    browser: "firefox",
    args: [],
  }),
  webkit,
};

/** `node test/<a test> chromium` leaves the others out. */
const isWanted = (name) => process.argv.length < 3 || process.argv.includes(name);

/** The browsers to test in: their names, and what starts each. */
export const WANTED = Object.entries(BROWSERS).filter(([name]) => isWanted(name));

/** A test that has Chromium to itself, until it ends; so has what `after` is given. */
export function inChromium(name, run) {
  if (!isWanted("chromium")) return;
  test(`Chromium: ${name}`, async () => {
    const ends = [];
    const after = (end) => ends.push(end);
    try {
      const b = await BROWSERS.chromium();
      after(() => b.close());
      await run(b, after);
    } finally {
      for (const end of ends.reverse()) await end();
    }
  });
}
