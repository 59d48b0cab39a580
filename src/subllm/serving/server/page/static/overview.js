// Models, requests and what is being made, as /ui/state tells them.

import { $, curve, element, fill, row } from "./dom.js";
import { count, ENDS, percent, rate, REASONS, seconds, size } from "./words.js";

export function showModels(models) {
  $("empty").hidden = models.length > 0;
  fill($("models").tBodies[0], models.map((model) => row([
    { label: "Model", content: element("span", { class: "name" }, model.name) },
    { label: "Language", content: model.language },
    { label: "Size", number: true, content: size(model.bytes) },
    { label: "Weights kept", content: kept(model) },
    { label: "Like the dense base", content: likeness(model) },
    { label: "Learned", content: learned(model.recovery) },
    { label: "In memory", content: memory(model.loaded) },
  ])));
}

function kept(model) {
  const pattern = model.pattern === "dense" ? "all" : percent(model.density);
  const how = model.pattern === "dense" ? model.values : `${model.pattern.replace(/^mixed-.*/, "mixed")}, ${model.values}`;
  return element("span", {}, pattern, element("small", {}, how));
}

function likeness(model) {
  if (model.language === "dense") return element("span", {}, "is the dense base");
  if (model.agreement === null) return "";
  const loss = model.perplexity.after / model.perplexity.before - 1;
  return element("span", {},
    element("meter", { min: 0.5, max: 1, high: 0.85, low: 0.7, optimum: 1, value: model.agreement, "aria-hidden": "true" }),
    percent(model.agreement),
    element("small", {}, `perplexity ${loss < 0 ? "−" : "+"}${percent(Math.abs(loss), 1)}`));
}

function learned(recovery) {
  if (!recovery) return "";
  const text = `${count(recovery.tokens)} tokens`;
  const gain = `${percent(recovery.before, 1)} → ${percent(recovery.after, 1)}`;
  return element("span", {}, text, element("small", {}, gain),
    recovery.curve.length > 2 ? curve(recovery.curve, `same first choices while learning: ${gain}`) : null);
}

function memory(loaded) {
  if (!loaded) return element("span", { class: "muted" }, "no");
  const more = [];
  if (loaded.active) more.push(`${loaded.active} running`);
  if (loaded.draft) more.push(`drafts: ${loaded.draft}`);
  if (loaded.drafted) more.push(`${percent(loaded.accepted / loaded.drafted)} of ${count(loaded.drafted)} drafted tokens taken`);
  return element("span", {}, size(loaded.bytes), ...more.map((line) => element("small", {}, line)));
}

export function showRequests({ running, ended }) {
  const all = [...running, ...ended];
  $("no-requests").hidden = all.length > 0;
  $("requests").hidden = all.length === 0;
  fill($("requests").tBodies[0], all.map((request) => row([
    { label: "State", content: element("span", { class: request.running ? "state good running" : "state" },
      element("span", { class: "dot", "aria-hidden": "true" }),
      request.running ? "running" : (ENDS[request.finish] ?? request.finish)) },
    { label: "Model", content: element("span", {}, request.model, element("small", {}, request.path)) },
    { label: "Route", content: element("span", {}, request.language ?? "not known",
      element("small", {}, REASONS[request.route] ?? request.route)) },
    { label: "Prompt", number: true, content: element("span", {}, count(request.prompt_tokens),
      request.cached_tokens ? element("small", {}, `${count(request.cached_tokens)} cached`) : null) },
    { label: "Written", number: true, content: element("span", {}, count(request.completion_tokens),
      request.drafted_tokens ? element("small", {}, `${count(request.accepted_tokens)} of ${count(request.drafted_tokens)} drafted`) : null) },
    { label: "Speed", number: true, content: rate(request.tokens_per_second) },
    { label: "First after", number: true, content: seconds(request.first_seconds) },
    { label: "Client", content: element("span", { class: "muted" }, client(request.client)) },
  ])));
}

const client = (agent) => (agent.startsWith("Mozilla/") ? "a browser" : agent.split(" ")[0]);

export function showWork(work) {
  $("work").hidden = work.length === 0;
  fill($("work").querySelector("ul"), work.map(({ what, blocks }) =>
    element("li", {}, element("code", {}, what), blocks ? `: ${blocks} ${blocks === 1 ? "block" : "blocks"} done` : "")));
}
