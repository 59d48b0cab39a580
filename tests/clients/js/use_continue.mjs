// Continue's adapters: fill-in-the-middle and chat, as each of its providers asks for them.
import assert from "node:assert/strict";
import { constructLlmApi } from "@continuedev/openai-adapters";
import { collect, MODEL, PREFIX, PROMPT, QUESTION, SUFFIX, TOKENS, URL_ } from "./asked.mjs";

const signal = new AbortController().signal;
const hole = { model: MODEL, prompt: PREFIX, suffix: SUFFIX, max_tokens: TOKENS, temperature: 0.01, stream: true };
const chat = { model: MODEL, messages: [{ role: "user", content: QUESTION }], max_tokens: TOKENS };
const delta = (piece) => piece.choices[0]?.delta?.content;
for (const [provider, apiBase] of [
  ["mistral", `${URL_}/v1/`],
  ["deepseek", `${URL_}/`],
  ["openai", `${URL_}/v1/`],
  ["llama.cpp", `${URL_}/`],
  ["vllm", `${URL_}/v1/`],
  ["lmstudio", `${URL_}/v1/`],
  ["ollama", `${URL_}/`],
]) {
  const api = constructLlmApi({ provider, apiBase, apiKey: "none" });
  const filled = await collect(api.fimStream(hole, signal), delta);
  assert.ok(filled.trim(), `${provider}: fimStream`);
  const text = await collect(api.chatCompletionStream({ ...chat, stream: true }, signal), delta);
  assert.ok(text, `${provider}: chat`);
  const whole = await api.completionNonStream({ model: MODEL, prompt: PROMPT, max_tokens: TOKENS }, signal);
  assert.ok(whole.choices[0].text, `${provider}: completion`);
}
const anthropic = constructLlmApi({ provider: "anthropic", apiBase: `${URL_}/v1/`, apiKey: "none" });
assert.ok(await collect(anthropic.chatCompletionStream({ ...chat, stream: true }, signal), delta), "anthropic");
