// tabby-agent as editors run it: a language server over stdio, asked for one completion.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { PREFIX, SUFFIX, URL_ } from "./asked.mjs";

const home = mkdtempSync(path.join(tmpdir(), "tabby-"));
const settings = path.join(home, ".tabby-client", "agent");
mkdirSync(settings, { recursive: true });
writeFileSync(
  path.join(settings, "config.toml"),
  `[server]\nendpoint = "${URL_}"\n[anonymousUsageTracking]\ndisable = true\n`,
);
const cli = createRequire(import.meta.url).resolve("tabby-agent/dist/cli.js");
const agent = spawn(process.execPath, [cli, "--lsp", "--stdio"], {
  env: { ...process.env, HOME: home },
  stdio: ["pipe", "pipe", "inherit"],
});

let buffer = Buffer.alloc(0);
const waiting = new Map();
const send = (message) => {
  const body = JSON.stringify({ jsonrpc: "2.0", ...message });
  agent.stdin.write(`Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
};
agent.stdout.on("data", (data) => {
  buffer = Buffer.concat([buffer, data]);
  for (;;) {
    const end = buffer.indexOf("\r\n\r\n");
    if (end < 0) return;
    const size = Number(/Content-Length: (\d+)/i.exec(buffer.subarray(0, end).toString())[1]);
    if (buffer.length < end + 4 + size) return;
    const message = JSON.parse(buffer.subarray(end + 4, end + 4 + size).toString());
    buffer = buffer.subarray(end + 4 + size);
    if (message.id !== undefined && message.method) send({ id: message.id, result: null });
    else waiting.get(message.id)?.(message);
  }
});
let last = 0;
const request = (method, params) =>
  new Promise((resolve, reject) => {
    const id = ++last;
    waiting.set(id, (message) =>
      message.error ? reject(new Error(JSON.stringify(message.error))) : resolve(message.result),
    );
    send({ id, method, params });
  });
const notify = (method, params) => send({ method, params });

const timer = setTimeout(() => assert.fail("tabby-agent did not answer in a minute"), 60_000);
try {
  await request("initialize", {
    processId: process.pid,
    rootUri: null,
    capabilities: { textDocument: { completion: {} } },
    clientInfo: { name: "test", version: "1" },
  });
  notify("initialized", {});
  const uri = `file://${home}/sums.py`;
  notify("textDocument/didOpen", {
    textDocument: { uri, languageId: "python", version: 1, text: PREFIX + SUFFIX },
  });
  const position = { line: 1, character: "    total = ".length };
  const deadline = Date.now() + 50_000;
  let items = [];
  while (!items.length && Date.now() < deadline) {
    const found = await request("textDocument/completion", {
      textDocument: { uri },
      position,
      context: { triggerKind: 1 },
    });
    items = Array.isArray(found) ? found : (found?.items ?? []);
    if (!items.length) await new Promise((resolve) => setTimeout(resolve, 500));
  }
  const text = items[0]?.textEdit?.newText ?? items[0]?.insertText;
  assert.ok(text?.trim(), `nothing was suggested: ${JSON.stringify(items)}`);
} finally {
  clearTimeout(timer);
  agent.kill();
  rmSync(home, { recursive: true, force: true });
}
