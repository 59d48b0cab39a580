// The server's JSON and its event streams, with the key where it asks for one.

import { $ } from "./dom.js";

const STORED = "subllm-key";

function headers(more = {}) {
  const key = sessionStorage.getItem(STORED);
  return key ? { ...more, Authorization: `Bearer ${sendable(key)}` } : more;
}

/** Headers carry bytes: what Latin-1 does not have goes as UTF-8. */
function sendable(key) {
  if ([...key].every((char) => char.codePointAt(0) < 256)) return key;
  return String.fromCharCode(...new TextEncoder().encode(key));
}

/** Asks for the key until the server takes one. Resolves when it is there. */
let asking = null;
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog");
    $("key-wrong").textContent = sessionStorage.getItem(STORED) ? "The server does not take this key." : "";
    $("key").value = "";
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(STORED, $("key").value);
      dialog.close();
    };
    dialog.onclose = () => {
      dialog.onclose = null;
      asking = null;
      resolve();
    };
    dialog.showModal();
  });
  return asking;
}

async function send(path, options) {
  for (;;) {
    const response = await fetch(path, { ...options, headers: headers(options.headers) });
    if (response.status !== 401) return response;
    await askForKey();
  }
}

export async function get(path) {
  const response = await send(path, { cache: "no-store" });
  if (!response.ok && response.status !== 503) throw new Error(await failure(response));
  return response.json();
}

/** Sends `body` and calls `onEvent` for each event. Resolves to the reply's headers. */
export async function stream(path, body, signal, onEvent) {
  const response = await send(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) throw new Error(await failure(response));
  let rest = "";
  let ended = false;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") { ended = true; continue; }
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      onEvent(event, response.headers);
    }
  }
  if (!ended) throw new Error("the server was lost before the answer was complete");
  return response.headers;
}

async function failure(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered with status ${response.status}`;
  }
}
