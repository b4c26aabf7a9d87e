"""Explorers for JupyterLab and the viewer that also works without a kernel.

``viewer(record, picture)`` packs a record into one object that

- shows itself at the end of a cell (live in JupyterLab, in a saved trusted notebook, in nbconvert HTML),
- gives a self-contained fragment for any page: ``viewer(...).to_html()``,
- writes a page that stands alone: ``viewer(...).save_html("page.html")``,
- becomes a widget with a kernel behind it: ``viewer(...).widget()``.

``explore(...)`` is the whole bench: model, picture, method, viewer, charts, regions and text.
"""

from attnlib.widgets.viewing import Viewer as Viewer
from attnlib.widgets.viewing import viewer as viewer

__all__ = ["Viewer", "viewer"]
