"""From a packed document to HTML: a fragment for a notebook's output, a page that stands alone.

Nothing is fetched, imported or registered: module, style, numbers and poster stand in the text itself.
Every string from outside goes through ``json`` with the characters of HTML escaped, or through
``html.escape``; the module puts it on the page as text only.
"""

from __future__ import annotations

import base64
import html
import json
import uuid
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["MODULE_FILES", "fragment", "json_for_script", "module_source", "page", "style_source"]

MODULE_FILES = (
    "decode.js",
    "words.js",
    "palette.js",
    "image_source.js",
    "text_source.js",
    "controls.js",
    "panels.js",
    "tokens.js",
    "image_pane.js",
    "text_difference.js",
    "text_pane.js",
    "kernel.js",
    "viewer.js",
    "controlling.js",
)
"""The parts of the one ES module, in the order in which they are joined."""

_FRAGMENT = """<div class="attnlib-root" data-attnlib="{name}" data-rest="{rest}">{poster}</div>
<style>{style}</style>
<script type="module">
{module}
const state = {state};
const values = {{ document: {document}, state, blob: new TwoParts(fromBase64("{blob}"), () =>
  fromBase64(document.querySelector('[data-attnlib="{name}"]').dataset.rest)) }};
const heard = {{}};
const model = {{
  get: (key) => values[key],
  set: (key, value) => {{ values[key] = value; }},
  save_changes() {{}},
  on: (event, react) => (heard[event] ??= []).push(react),
  off: (event, react) => {{ heard[event] = (heard[event] ?? []).filter((one) => one !== react); }},
}};
// the same output may stand on a page several times: start every copy that is not running yet
for (const el of document.querySelectorAll('[data-attnlib="{name}"]:not([data-ready])')) {{
  el.dataset.ready = "1";
  const own = {{ ...values, state: structuredClone(state) }};
  const mine = {{ ...model, get: (key) => own[key], set: (key, value) => {{ own[key] = value; }} }};
  render({{ model: mine, el }}).catch((problem) => {{
    const words = document.createElement("p");
    words.setAttribute("role", "alert");
    words.textContent = `The viewer could not start: ${{problem.message}}`;
    el.append(words);
  }});
}}
</script>"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
@media print {{ :root {{ color-scheme: light; }} }}
body {{ font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; margin: 1.2rem auto;
  max-width: 76rem; padding: 0 1rem; background: light-dark(#fff, #14181d);
  color: light-dark(#1f2328, #e6edf3); }}
table {{ border-collapse: collapse; }} td, th {{ padding: 2px 10px 2px 0; text-align: left; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""


@cache
def module_source() -> str:
    """Return the viewer's one ES module, without its export."""
    folder = files("attnlib.widgets") / "js"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in MODULE_FILES)


@cache
def style_source() -> str:
    """Return the viewer's stylesheet."""
    return (files("attnlib.widgets") / "js" / "viewer.css").read_text(encoding="utf-8")


def json_for_script(value: Any) -> str:
    """Return JSON that may stand inside a script element: no character can end it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def fragment(
    document: dict[str, Any], blob: bytes, state: dict[str, Any], *, poster: bytes | None, alt: str
) -> str:
    """Return a self-contained piece of HTML: poster, style, module and numbers.

    Parameters
    ----------
    document, blob, state : what the viewer reads: description, numbers, first selection.
    poster : a JPEG picture that stands there until the viewer runs, and wherever scripts are not run.
    alt : what the poster shows, in words.
    """
    picture = ""
    if poster is not None:
        data = base64.b64encode(poster).decode()
        picture = f'<img alt="{html.escape(alt)}" src="data:image/jpeg;base64,{data}" style="max-width:100%">'
    split = document.get("split", len(blob))
    return _FRAGMENT.format(
        name=f"a{uuid.uuid4().hex[:12]}",
        poster=picture,
        style=style_source(),
        module=module_source(),
        state=json_for_script(state),
        document=json_for_script(document),
        blob=base64.b64encode(blob[:split]).decode(),
        rest=base64.b64encode(blob[split:]).decode(),
    )


def page(title: str, body: str) -> str:
    """Return a whole HTML page around finished HTML; the title is escaped here."""
    return _PAGE.format(title=html.escape(title), body=body)
