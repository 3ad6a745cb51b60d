// The status page in a real Chromium. Started by TestPageInBrowser (internal/daemon), which runs
// the daemon and kills the candidate when this says so: a line on stdout for each step, a line on
// stdin for each one done. Exits 1 with a reason.
//
// usage: node page.mjs URL NAME NEAR FAR DIRECTORY
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [url, name, near, far, directory] = process.argv.slice(2);
const origin = new URL(url).origin;
const problems = [];
const check = (ok, what) => { if (!ok) problems.push(what); };

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const tell = async (what) => { console.log(what); await lines.next(); };

const profile = await mkdtemp(join(tmpdir(), "hard-chromium-"));
const options = {
  executablePath: process.env.HARD_CHROMIUM || "/usr/bin/chromium",
  headless: true,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
};

// watch notes all that a page says and asks for.
const watch = (context) => {
  context.on("console", (m) => problems.push(`console ${m.type()}: ${m.text()}`));
  context.on("weberror", (e) => problems.push(`error: ${e.error()}`));
  context.on("request", (r) => check(r.url().startsWith(origin + "/"), `a request to ${r.url()}`));
  context.on("response", (r) => check(r.status() < 400, `${r.status()} for ${r.url()}`));
};

// contrast gives every text on the page whose contrast is less than WCAG AA wants. It runs in the page.
const contrast = () => {
  const parse = (c) => (c.match(/[\d.]+/g) || []).map(Number);
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (el) => {
    for (; el; el = el.parentElement) {
      const c = parse(getComputedStyle(el).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const el of document.querySelectorAll("body *")) {
    const own = Array.from(el.childNodes).some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || el.tagName.toUpperCase() === "TITLE" || el.tagName === "NOSCRIPT") continue;
    const style = getComputedStyle(el);
    const a = light(parse(el instanceof SVGElement ? style.fill : style.color)), b = light(behind(el));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${el.tagName}.${el.className.baseVal ?? el.className} ${ratio.toFixed(2)} "${el.textContent.slice(0, 30)}"`);
  }
  return bad;
};

// hiddenOnPhone gives what can't be read without scrolling sideways, or is too small. It runs in the page.
const hiddenOnPhone = () => {
  const bad = [];
  for (const el of document.querySelectorAll(".scroll")) {
    const wide = el.scrollWidth - el.clientWidth;
    if (wide > 0) bad.push(`"${el.getAttribute("aria-label")}" has ${wide} px outside`);
  }
  for (const el of document.querySelectorAll("svg.chart text")) {
    const { height } = el.getBoundingClientRect();
    if (height > 0 && height < 10) bad.push(`"${el.textContent}" of the chart is ${height.toFixed(1)} px high`);
  }
  return bad;
};

const answers = ([n, a]) => {
  const rows = Array.from(document.querySelectorAll("tr.name"));
  const row = rows.find((r) => r.querySelector("a")?.textContent === n);
  return row?.querySelector(".answers")?.textContent.includes(a);
};

const shots = [
  ["light", { colorScheme: "light", viewport: { width: 1280, height: 800 } }],
  ["dark", { colorScheme: "dark", viewport: { width: 1280, height: 800 } }],
  ["phone", { colorScheme: "light", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true }],
  ["no-script", { colorScheme: "light", viewport: { width: 1280, height: 800 }, javaScriptEnabled: false }],
];

const photograph = async (browser, when) => {
  for (const [kind, o] of shots) {
    const context = await browser.newContext(o);
    watch(context);
    const page = await context.newPage();
    for (const [what, path] of [["overview", "/"], ["name", "/name/" + encodeURIComponent(name)]]) {
      await page.goto(origin + path);
      await page.screenshot({ path: join(directory, `${when}-${what}-${kind}.png`), fullPage: true });
      if (o.javaScriptEnabled === false) continue;
      for (const text of await page.evaluate(contrast)) check(false, `contrast, ${what} ${kind}: ${text}`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      check(wide <= 0, `${what} ${kind} is ${wide} px wider than the screen`);
      if (kind !== "phone") continue;
      for (const text of await page.evaluate(hiddenOnPhone)) check(false, `${what} on a phone: ${text}`);
    }
    await context.close();
  }
};

try {
  // launchPersistentContext is the way to a profile directory of one's own; it is new and empty.
  const context = await chromium.launchPersistentContext(profile, { ...options, viewport: { width: 1280, height: 800 } });
  watch(context);
  const page = context.pages()[0] || await context.newPage();
  await page.goto(url);
  await page.waitForFunction(answers, [name, near], { timeout: 20000 });

  // By keyboard: the first tab stop is the way past the header, and a name's page is reached.
  await page.keyboard.press("Tab");
  check(await page.evaluate(() => document.activeElement.className === "skip"), "the first tab stop is not the skip link");
  await page.locator("tr.name a").first().focus();
  const focused = await page.evaluate(() => document.activeElement.textContent);
  await page.waitForResponse((r) => r.url() === url); // a refresh
  await page.waitForTimeout(300);
  check(await page.evaluate(() => document.activeElement.textContent) === focused, "a refresh takes the focus away");

  await photograph(context.browser() ?? await chromium.launch(options), "before");
  await page.bringToFront();

  await tell("kill");
  const began = performance.now();
  await page.waitForFunction(answers, [name, far], { timeout: 20000, polling: 20 });
  const took = performance.now() - began;
  console.log(`failover ${Math.round(took)}`);
  await page.waitForFunction(() => Array.from(document.querySelectorAll(".badge.tone-bad")).some((e) => e.textContent === "unhealthy"));

  await photograph(context.browser() ?? await chromium.launch(options), "after");

  // Paused, nothing moves.
  await page.bringToFront();
  await page.locator("#pause").click();
  await page.waitForTimeout(200);
  const still = await page.locator(".foot").textContent();
  await page.waitForTimeout(1500);
  check(await page.locator(".foot").textContent() === still, "a paused page moves");
  await context.close();
} catch (e) {
  problems.push(String(e.stack || e));
} finally {
  await rm(profile, { recursive: true, force: true });
}
for (const p of new Set(problems)) console.log("problem " + p.replaceAll("\n", " "));
process.exit(problems.length ? 1 : 0);
