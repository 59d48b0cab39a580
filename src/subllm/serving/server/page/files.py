"""The page's files by the path that serves them."""

from __future__ import annotations

FILES = {
    "/": "index.html",
    "/ui/page.css": "page.css",
    "/ui/icon.svg": "icon.svg",
    "/ui/main.js": "main.js",
    "/ui/api.js": "api.js",
    "/ui/dom.js": "dom.js",
    "/ui/overview.js": "overview.js",
    "/ui/playground.js": "playground.js",
    "/ui/words.js": "words.js",
}
