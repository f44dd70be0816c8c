// Drives Chromium for gateway/browser_test.go: one JSON command a line on
// stdin, one JSON answer a line on stdout. It decides nothing by itself.
//
//   {"do": "open", "page": "a", "url": …, "dark": false, "width": 1280, "height": 800,
//    "turn": "127.0.0.1:3478"}           where TURN over UDP is, for this page
//   {"do": "click" | "fill" | "press", "page": "a", "selector": …, "value": …}
//   {"do": "eval", "page": "a", "value": "an expression"}
//   {"do": "wait", "page": "a", "value": "an expression", "timeout": milliseconds}
//   {"do": "screenshot", "page": "a", "value": "file.png"}
//   {"do": "interrupt", "page": "a"}     breaks the signalling WebSocket, once
//   {"do": "problems", "page": "a"}      errors the page has written to its console
//   {"do": "close", "page": "a"}
//
//   {"value": …}  or  {"error": "…"}

import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const { executablePath, args, proxy } = JSON.parse(process.argv[2]);
const browser = await chromium.launch({ executablePath, args, proxy: proxy ?? undefined, headless: true });
const pages = new Map(); // name → {context, page, problems}

async function open({ page: name, url, dark, width, height, turn }) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true,
    colorScheme: dark ? 'dark' : 'light',
    reducedMotion: 'reduce', // every frame is drawn without a graphics card
    viewport: { width: width || 1280, height: height || 800 },
    permissions: ['camera', 'microphone', 'clipboard-write'],
  });
  await context.addInitScript({ path: 'watch.js' });
  const page = await context.newPage();
  const problems = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) problems.push(`${message.type()}: ${message.text()}`);
  });
  const sockets = [];
  await page.routeWebSocket(/\/demo\/ws$/, (socket) => sockets.push([socket, socket.connectToServer()]));
  if (turn) await page.route('**/demo/config', (route) => redirect(route, turn));
  pages.set(name, { context, page, problems, sockets });
  await page.goto(url);
}

// redirect answers with the server's configuration, but for one address.
async function redirect(route, turn) {
  const response = await route.fetch();
  const config = await response.json();
  for (const server of config.iceServers) {
    server.urls = server.urls.map((url) => url.replace(/^turn:.*\?transport=udp$/, `turn:${turn}?transport=udp`));
  }
  await route.fulfill({ response, json: config });
}

// wait polls from here: the page's content policy forbids the evaluation of
// text that Playwright's own waiting relies on.
async function wait(page, expression, timeout) {
  const deadline = Date.now() + timeout;
  for (;;) {
    if (await page.evaluate(expression)) return true;
    if (Date.now() > deadline) throw new Error(`timeout after ${timeout} ms waiting for ${expression}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function perform(command) {
  if (command.do === 'open') return open(command);
  const { context, page, problems, sockets } = pages.get(command.page);
  const { selector, value, timeout } = command;
  switch (command.do) {
    case 'click': return page.click(selector, { timeout: timeout || 5000 });
    case 'fill': return page.fill(selector, value);
    case 'press': return page.keyboard.press(value);
    case 'eval': return page.evaluate(value);
    case 'wait': return wait(page, value, timeout || 15000);
    case 'screenshot': await page.screenshot({ path: value }); return null;
    case 'interrupt': for (const side of sockets.pop()) await side.close({ code: 4000 }); return null;
    case 'problems': return problems;
    case 'close': await context.close(); pages.delete(command.page); return null;
    default: throw new Error(`unknown command ${command.do}`);
  }
}

process.stdout.write(`${JSON.stringify({ value: browser.version() })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { value: (await perform(JSON.parse(line))) ?? null };
  } catch (error) {
    answer = { error: String(error.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
