"""Explorers for JupyterLab and the viewer that also works without a kernel.

``viewer(record, picture)`` packs a record into one object that

- shows itself at the end of a cell (live in JupyterLab, in a saved trusted notebook, in nbconvert HTML),
- gives a self-contained fragment for any page: ``viewer(...).to_html()``,
- writes a page that stands alone: ``viewer(...).save_html("page.html")``,
- becomes a widget with a kernel behind it: ``viewer(...).widget()``.

``explore(...)`` is the whole bench: model, picture, method, viewer, charts, regions and text.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from attnlib.widgets.patterns import head_patterns as head_patterns
from attnlib.widgets.patterns import token_names as token_names
from attnlib.widgets.viewing import Viewer as Viewer
from attnlib.widgets.viewing import viewer as viewer

if TYPE_CHECKING:
    from attnlib.widgets.explorer import Explorer as Explorer
    from attnlib.widgets.live import LiveViewer as LiveViewer
    from attnlib.widgets.opening import explore as explore
    from attnlib.widgets.state import ExplorerState as ExplorerState

_HOME = {
    "Explorer": "attnlib.widgets.explorer",
    "ExplorerState": "attnlib.widgets.state",
    "LiveViewer": "attnlib.widgets.live",
    "explore": "attnlib.widgets.opening",
}

__all__ = [
    "Explorer",
    "ExplorerState",
    "LiveViewer",
    "Viewer",
    "explore",
    "head_patterns",
    "token_names",
    "viewer",
]


def __getattr__(name: str) -> Any:
    # the explorer brings ipywidgets and every method with it; a report that only packs viewers needs neither
    if name not in _HOME:
        raise AttributeError(f"module 'attnlib.widgets' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
