"""The outputs of a notebook that ran: figures counted, made to live in a page without a kernel."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import nbformat

__all__ = ["PROVENANCE", "count_drawn", "count_figures", "make_offline", "outside_addresses", "provenance"]

PROVENANCE = "application/vnd.attnlib.provenance+json"
"""Mimetype under which a notebook tells the report what its figures come from."""

_PLOTLY = "application/vnd.plotly.v1+json"
_WIDGET = "application/vnd.jupyter.widget-view+json"
_PICTURES = ("image/png", "image/jpeg", "image/svg+xml", _PLOTLY)
_DRAWN = re.compile(r"<(?:img|svg|canvas)\b|class=\"(?:plotly-graph-div|attnlib-plotly)", re.IGNORECASE)
_LOADS = re.compile(
    r"""<(?:script|link|img|iframe|source|video|audio|object|embed)\b[^>]*?\b(?:src|href|data)\s*=\s*"""
    r"""["']?\s*((?:https?:)?//[^"'\s>]+)""",
    re.IGNORECASE,
)
_NO_KERNEL = (
    '<p class="attnlib-note">Here the notebook shows controls that need a kernel: '
    "open it in JupyterLab to use them.</p>"
)


def count_figures(notebook: nbformat.NotebookNode) -> int:
    """Return how many outputs show a picture or a chart."""
    return sum(_is_figure(bundle) for bundle in _bundles(notebook))


def count_drawn(page: str) -> int:
    """Return how many pictures and charts a page draws."""
    return len(_DRAWN.findall(page))


def provenance(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """Return what the notebook told about where its figures come from."""
    return [dict(bundle[PROVENANCE]) for bundle in _bundles(notebook) if PROVENANCE in bundle]


def make_offline(notebook: nbformat.NotebookNode) -> int:
    """Turn what needs a server or a kernel into plain HTML, in place; return the number of plotly charts.

    Plotly charts become data that the page's own copy of plotly draws. Widgets keep their picture or
    HTML twin; without one a sentence stands in their place. What went to standard error is left out.
    """
    charts = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        for output in cell.outputs:
            data = output.get("data")
            if data is None:
                continue
            if _PLOTLY in data:
                data["text/html"] = _chart(data.pop(_PLOTLY), charts)
                charts += 1
            elif _WIDGET in data:
                data.pop(_WIDGET)
                if not set(data) & {"text/html", *_PICTURES}:
                    data["text/html"] = _NO_KERNEL
            elif isinstance(data.get("text/html"), str):
                data["text/html"] = _own_plotly_removed(data["text/html"])
    notebook.metadata.pop("widgets", None)
    return charts


def outside_addresses(page: str) -> list[str]:
    """Return the addresses that a page would load from elsewhere."""
    return sorted(set(_LOADS.findall(page)))


def _bundles(notebook: nbformat.NotebookNode) -> Iterator[dict[str, Any]]:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            yield from (output["data"] for output in cell.outputs if "data" in output)


def _is_figure(bundle: dict[str, Any]) -> bool:
    if any(kind in bundle for kind in _PICTURES):
        return True
    return bool(_DRAWN.search(str(bundle.get("text/html", ""))))


def _chart(figure: dict[str, Any], number: int) -> str:
    layout = figure.get("layout", {})
    title = layout.get("title", {})
    words = title.get("text") if isinstance(title, dict) else title
    height = int(layout.get("height") or 450)
    held = {"data": figure.get("data", []), "layout": layout}
    text = json.dumps(held).replace("</", "<\\/").replace("<!--", "<\\!--")
    return (
        f'<div class="attnlib-plotly" id="attnlib-plotly-{number}" role="figure" '
        f'aria-label="{html.escape(str(words or "chart"), quote=True)}" style="min-height:{height}px"></div>'
        f'<script type="application/json" data-attnlib-plotly="attnlib-plotly-{number}">{text}</script>'
    )


def _own_plotly_removed(text: str) -> str:
    """Take out the MathJax loader that plotly's HTML renderers put before a chart."""
    return re.sub(
        r"<script[^>]*src=[\"']https://cdn\.jsdelivr\.net/npm/mathjax[^>]*></script>", "", text, flags=re.I
    )
