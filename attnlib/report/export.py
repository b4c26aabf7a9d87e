"""From a notebook that ran to one page that needs nothing else."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlib.errors import ReportError
from attnlib.report.mathml import with_mathml
from attnlib.report.outputs import count_drawn, count_figures, make_offline, outside_addresses

if TYPE_CHECKING:
    import nbformat

__all__ = ["page_title", "to_page"]

_TEMPLATES = Path(__file__).with_name("template")
_PRIORITY = [
    "text/html",
    "image/svg+xml",
    "image/png",
    "image/jpeg",
    "text/markdown",
    "text/latex",
    "text/plain",
]


def to_page(notebook: nbformat.NotebookNode, *, colophon: str, show_code: bool = False) -> str:
    """Return one HTML page with the text and the outputs of a notebook.

    Parameters
    ----------
    notebook : a notebook that ran; it stays as it is.
    colophon : the line at the end of the page.
    show_code : print the code cells too, except those tagged ``setup`` or ``parameters``.

    Raises
    ------
    ReportError
        If a figure is missing on the page, or it would load something from elsewhere.
    """
    import nbconvert
    from traitlets.config import Config

    shown = copy.deepcopy(notebook)
    charts = make_offline(shown)
    _write_mathematics(shown)
    for cell in shown.cells:
        if {"setup", "parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            cell.source = ""
    config = Config()
    config.HTMLExporter.template_name = "attnlib"
    config.TemplateExporter.extra_template_basedirs = [str(_TEMPLATES)]
    config.NbConvertBase.display_data_priority = _PRIORITY
    resources: dict[str, Any] = {
        "page_title": page_title(shown),
        "style": (_TEMPLATES / "style.css").read_text(),
        "colophon": colophon,
        "show_code": show_code,
        "plotly": _plotly() if charts else "",
        "plotly_start": (_TEMPLATES / "plotly_start.js").read_text(),
    }
    page, _ = nbconvert.HTMLExporter(config=config).from_notebook_node(shown, resources=resources)
    if count_drawn(page) < count_figures(notebook):
        raise ReportError(
            f"the page draws {count_drawn(page)} of the {count_figures(notebook)} figures of the notebook"
        )
    loaded = outside_addresses(page)
    if loaded:
        raise ReportError(
            f"the report would load {', '.join(loaded[:3])} from the network: show pictures that are part "
            "of the notebook instead"
        )
    return page


def _plotly() -> str:
    # The figures' room brings torch with it, seconds that a page without a plotly chart need not wait for.
    from attnlib.viz.bundle import packed_plotly

    return packed_plotly()


def page_title(notebook: nbformat.NotebookNode) -> str:
    """Return the first heading of a notebook."""
    for cell in notebook.cells:
        found = re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if found:
            return found[1].strip()
    return "attnlib report"


def _write_mathematics(notebook: nbformat.NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(cell.source)
            continue
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = with_mathml(data["text/markdown"])
