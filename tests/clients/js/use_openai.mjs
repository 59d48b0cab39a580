// OpenAI's own client: completions, chat, responses, models, errors.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { collect, MODEL, NO_MODEL, PREFIX, PROMPT, QUESTION, SIZES, SUFFIX, TOKENS, URL_ } from "./asked.mjs";

const client = new OpenAI({ baseURL: `${URL_}/v1`, apiKey: "none", maxRetries: 0 });
const ids = [];
for await (const model of client.models.list()) ids.push(model.id);
assert.ok(ids.includes(MODEL));

const asked = { model: MODEL, prompt: PROMPT, max_tokens: TOKENS };
const whole = await client.completions.create(asked);
assert.ok(whole.choices[0].text && whole.usage.completion_tokens <= TOKENS);
const pieces = await client.completions.create({ ...asked, stream: true });
assert.equal(await collect(pieces, (piece) => piece.choices[0].text), whole.choices[0].text);
const hole = await client.completions.create({ ...asked, prompt: PREFIX, suffix: SUFFIX });
assert.ok(hole.choices[0].text.trim());

const chat = {
  model: MODEL,
  messages: [{ role: "user", content: QUESTION }],
  max_completion_tokens: TOKENS,
};
const reply = await client.chat.completions.create(chat);
const text = reply.choices[0].message.content;
assert.ok(text);
const final = await client.chat.completions.stream(chat).finalChatCompletion();
assert.equal(final.choices[0].message.content, text);

const response = { model: MODEL, input: QUESTION, max_output_tokens: TOKENS };
assert.equal((await client.responses.create(response)).output_text, text);
const events = client.responses.stream(response);
assert.equal((await events.finalResponse()).output_text, text);

const form = { type: "json_schema", json_schema: { name: "size", schema: SIZES } };
const { max_completion_tokens, ...free } = chat;
const sized = await client.chat.completions.create({ ...free, response_format: form });
assert.ok(["small", "large"].includes(JSON.parse(sized.choices[0].message.content).size));
const tools = [{ type: "function", function: { name: "resize", parameters: SIZES } }];
const calling = { ...free, tools, tool_choice: "required", parallel_tool_calls: false };
const called = await client.chat.completions.create(calling);
const call = called.choices[0].message.tool_calls[0].function;
assert.ok(call.name === "resize" && ["small", "large"].includes(JSON.parse(call.arguments).size));
const streamed = await client.chat.completions.stream(calling).finalChatCompletion();
assert.equal(streamed.choices[0].message.tool_calls[0].function.arguments, call.arguments);

// A stream that is left does not hold the next one up.
const left = await client.completions.create({ ...asked, max_tokens: 400, stream: true });
for await (const piece of left) break;
await assert.rejects(
  client.completions.create({ model: NO_MODEL, prompt: "x" }),
  (error) => error.status === 404 && error.message.includes(NO_MODEL),
);
