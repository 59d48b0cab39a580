// Looks at the server every second while somebody looks at the page.

import { get } from "./api.js";
import { $ } from "./dom.js";
import { showModels, showRequests, showWork } from "./overview.js";
import { offer, start } from "./playground.js";
import { duration } from "./words.js";

const OFTEN = 1000; // milliseconds, while something runs
const SELDOM = 4000;

function health(good, text) {
  $("health").className = good ? "good" : "bad";
  if ($("health-text").textContent !== text) $("health-text").textContent = text;
}

async function look() {
  let next = SELDOM;
  try {
    const state = await get("/ui/state");
    health(state.status === "ok", state.loading ? `loading ${state.loading}` : state.status);
    $("server").textContent = `version ${state.version}, up for ${duration(state.uptime_seconds)}`;
    offer(state.ids, state.models);
    showModels(state.models);
    showWork(state.work);
    showRequests(state.requests);
    if (state.open || state.loading) next = OFTEN;
  } catch (error) {
    health(false, error instanceof TypeError ? "the server does not answer" : error.message);
  }
  return next;
}

async function watch() {
  for (;;) {
    const next = await look();
    await new Promise((resolve) => {
      const timer = setTimeout(done, next);
      // What is asked here shows at once.
      const soon = () => setTimeout(done, 300);
      function done() {
        clearTimeout(timer);
        $("ask").removeEventListener("submit", soon);
        document.removeEventListener("visibilitychange", seen);
        if (document.hidden) document.addEventListener("visibilitychange", resolve, { once: true });
        else resolve();
      }
      const seen = () => { if (!document.hidden) done(); };
      $("ask").addEventListener("submit", soon);
      document.addEventListener("visibilitychange", seen);
    });
  }
}

start();
watch();
