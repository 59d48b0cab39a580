// Try the models: completion, fill-in-the-middle at the cursor, chat.

import { stream } from "./api.js";
import { $, element } from "./dom.js";
import { count, percent, rate, REASONS, seconds } from "./words.js";

const MODES = {
  complete: {
    label: "Code to go on with",
    text: "def is_prime(n: int) -> bool:\n",
    hint: () => "It goes on where the text ends.",
  },
  fill: {
    label: "Code with a gap",
    text: "def mean(values):\n    \n    return total / len(values)\n",
    hint: () => {
      const before = $("text").value.slice(0, $("text").selectionStart).split("\n");
      return `Filled in at the cursor: line ${before.length}, column ${before.at(-1).length + 1}.`;
    },
  },
  chat: {
    label: "Message",
    text: "How do I reverse a list in Python?",
    hint: () => (turns.length ? "The conversation goes on; Clear begins a new one." : ""),
  },
};

let turns = [];
let running = null; // an AbortController
let mode = "complete";
let taken = null; // what `Take it over` puts into the text
const texts = Object.fromEntries(Object.entries(MODES).map(([name, { text }]) => [name, text]));
const cursors = { fill: texts.fill.indexOf("\n    \n") + 5 };

export function start() {
  $("ask").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  $("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); $("ask").requestSubmit(); }
    if (event.key === "Escape") stop();
  });
  $("stop").addEventListener("click", stop);
  $("take").addEventListener("click", take);
  $("clear").addEventListener("click", () => { turns = []; clear(); hint(); });
  for (const radio of document.querySelectorAll("input[name=mode]")) {
    radio.addEventListener("change", () => choose(radio.value));
  }
  for (const kind of ["keyup", "click", "input", "select"]) $("text").addEventListener(kind, hint);
  choose(document.querySelector("input[name=mode]:checked").value);
}

/** Offer what is served, and keep what was chosen. */
export function offer(ids, models) {
  options($("model"), ["auto", ...ids.filter((id) => id !== "auto")].map((id) => [id, id]));
  const languages = [...new Set(models.map(({ language }) => language))];
  const named = languages.filter((name) => name !== "dense" && name !== "general").sort();
  options($("language"), [["", "as found"], ...named.map((name) => [name, name])]);
}

function options(select, pairs) {
  const shown = JSON.stringify(pairs);
  if (select.dataset.shown === shown) return;
  const chosen = select.value;
  select.dataset.shown = shown;
  select.replaceChildren(...pairs.map(([value, text]) => element("option", { value }, text)));
  if (pairs.some(([value]) => value === chosen)) select.value = chosen;
}

function choose(name) {
  stop();
  const area = $("text");
  if (area.dataset.mode) {
    texts[mode] = area.value;
    cursors[mode] = area.selectionStart;
  }
  mode = area.dataset.mode = name;
  area.value = texts[name];
  const at = cursors[name] ?? area.value.length;
  area.setSelectionRange(at, at);
  $("text-label").textContent = MODES[name].label;
  $("answer-label").textContent = name === "chat" ? "Conversation" : "Answer";
  $("run").textContent = name === "chat" ? "Send" : "Run";
  $("take").hidden = name === "chat";
  clear();
  if (name === "chat") turns.forEach(({ role, content }) => turn(role, content));
  hint();
}

function hint() {
  $("hint").textContent = MODES[mode].hint();
}

function clear() {
  $("answer").replaceChildren();
  $("told").textContent = "";
  taken = null;
  $("take").disabled = true;
}

function stop() {
  running?.abort();
}

async function run() {
  if (!$("ask").reportValidity() || running) return;
  const area = $("text");
  const text = area.value;
  const at = area.selectionStart;
  const body = {
    model: $("model").value,
    max_tokens: Number($("tokens").value),
    temperature: Number($("temperature").value),
  };
  if ($("language").value) body.language = $("language").value;
  let path = "/v1/completions";
  let written;
  if (mode === "chat") {
    if (!text.trim()) return;
    path = "/v1/chat/completions";
    body.messages = [...turns, { role: "user", content: text }];
    if (!turns.length) clear();
    turn("user", text);
    written = turn("assistant", "");
    area.value = "";
  } else {
    clear();
    const [before, after] = mode === "fill" ? [text.slice(0, at), text.slice(at)] : [text, ""];
    body.prompt = before;
    if (mode === "fill") body.suffix = after;
    written = element("span", { class: "new" });
    $("answer").append(element("span", { class: "given" }, before), written, element("span", { class: "given" }, after));
    taken = (answer) => [before + answer + after, before.length + answer.length];
  }
  await answer(path, body, written);
  if (mode !== "chat") $("take").disabled = !written.textContent;
}

async function answer(path, body, written) {
  const began = performance.now();
  let first = null;
  let usage = null;
  let finish = null;
  let model = "";
  let route = null;
  const from = mode;
  running = new AbortController();
  busy(true);
  $("told").textContent = "waiting for the first token";
  try {
    await stream(path, body, running.signal, (event, headers) => {
      route = headers.get("x-subllm-route");
      model = event.model ?? model;
      usage = event.usage ? { ...event.usage, timings: event.timings } : usage;
      for (const choice of event.choices) {
        const text = choice.text ?? choice.delta?.content ?? "";
        finish = choice.finish_reason ?? finish;
        if (text && first === null) {
          first = (performance.now() - began) / 1000;
          $("told").textContent = `${model}, ${REASONS[route] ?? route}`;
        }
        if (text) {
          written.append(text);
          if (mode === "chat") $("answer").scrollTop = $("answer").scrollHeight;
        }
      }
    });
    if (from === mode) $("told").textContent = told(model, route, usage, first, finish);
  } catch (error) {
    if (error.name === "AbortError") {
      if (from === mode) $("told").textContent = "stopped";
    } else {
      written.classList.add("failed");
      $("told").textContent = error.message;
    }
  } finally {
    running = null;
    busy(false);
  }
  if (from === "chat" && written.textContent) {
    turns = [...body.messages, { role: "assistant", content: written.textContent }];
  }
  hint();
}

function told(model, route, usage, first, finish) {
  const parts = [`${model}, ${REASONS[route] ?? route}`];
  if (usage) {
    parts.push(`${count(usage.completion_tokens)} tokens${finish === "length" ? " (limit)" : ""}`);
    const speed = usage.timings?.predicted_per_second;
    if (speed && usage.completion_tokens > 1) parts.push(rate(speed));
    const cached = usage.prompt_tokens_details?.cached_tokens;
    parts.push(`prompt ${count(usage.prompt_tokens)}${cached ? `, ${count(cached)} cached` : ""}`);
    const { accepted_prediction_tokens: yes = 0, rejected_prediction_tokens: no = 0 } =
      usage.completion_tokens_details ?? {};
    if (yes + no) parts.push(`${percent(yes / (yes + no))} of ${count(yes + no)} drafted tokens taken`);
  }
  if (first !== null) parts.push(`first after ${seconds(first)}`);
  return parts.join(" · ");
}

function turn(role, content) {
  const text = element("span", {}, content);
  $("answer").append(element("div", { class: "turn" },
    element("span", { class: "who" }, role === "user" ? "You" : "Model"), text));
  return text;
}

function take() {
  if (!taken) return;
  const area = $("text");
  const [text, at] = taken($("answer").querySelector(".new").textContent);
  area.value = text;
  area.focus();
  area.setSelectionRange(at, at);
  clear();
  hint();
}

function busy(is) {
  $("run").disabled = is;
  $("stop").disabled = !is;
  $("answer").setAttribute("aria-busy", String(is));
}
