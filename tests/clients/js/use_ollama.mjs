// Ollama's own client: what is there, generate with and without a suffix, chat.
import assert from "node:assert/strict";
import { Ollama } from "ollama";
import { collect, MODEL, NO_MODEL, PREFIX, PROMPT, QUESTION, SIZES, SUFFIX, TOKENS, URL_ } from "./asked.mjs";

const client = new Ollama({ host: URL_ });
const options = { num_predict: TOKENS };
assert.ok((await client.list()).models.some((model) => model.model === MODEL));
assert.ok((await client.show({ model: MODEL })).capabilities.includes("insert"));

const asked = { model: MODEL, prompt: PROMPT, raw: true, options };
const whole = await client.generate(asked);
assert.ok(whole.response && whole.eval_count <= TOKENS);
const pieces = await client.generate({ ...asked, stream: true });
assert.equal(await collect(pieces, (piece) => piece.response), whole.response);
const hole = await client.generate({ model: MODEL, prompt: PREFIX, suffix: SUFFIX, options });
assert.ok(hole.response.trim());
assert.ok((await client.ps()).models.some((model) => model.model === MODEL));

const chat = { model: MODEL, messages: [{ role: "user", content: QUESTION }], options };
const reply = await client.chat(chat);
const stream = await client.chat({ ...chat, stream: true });
assert.equal(await collect(stream, (piece) => piece.message.content), reply.message.content);

const sized = await client.chat({ ...chat, format: SIZES });
assert.ok(["small", "large"].includes(JSON.parse(sized.message.content).size));

await assert.rejects(client.generate({ model: NO_MODEL, prompt: "x" }), (error) =>
  error.message.includes(NO_MODEL),
);
