"""papermill and nbconvert: one notebook in, one self-contained HTML file and a manifest out.

Names are loaded when they are used: starting a report needs no torch, its kernel loads that.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "DEFAULT_MODEL": "attnlib.report.mapping",
    "Mapped": "attnlib.report.mapping",
    "Still": "attnlib.report.panels",
    "find_notebook": "attnlib.report.notebooks",
    "find_pictures": "attnlib.report.folder",
    "layers_panel": "attnlib.report.panels",
    "legend_table": "attnlib.report.panels",
    "map_panel": "attnlib.report.panels",
    "map_picture": "attnlib.report.mapping",
    "notebook_names": "attnlib.report.notebooks",
    "origin": "attnlib.report.panels",
    "profile_panel": "attnlib.report.panels",
    "run_report": "attnlib.report.make",
    "run_reports": "attnlib.report.folder",
    "said_panel": "attnlib.report.panels",
    "viewer_panel": "attnlib.report.panels",
}

__all__ = [
    "DEFAULT_MODEL",
    "Mapped",
    "Still",
    "find_notebook",
    "find_pictures",
    "layers_panel",
    "legend_table",
    "map_panel",
    "map_picture",
    "notebook_names",
    "origin",
    "profile_panel",
    "run_report",
    "run_reports",
    "said_panel",
    "viewer_panel",
]

if TYPE_CHECKING:
    from attnlib.report.folder import find_pictures as find_pictures
    from attnlib.report.folder import run_reports as run_reports
    from attnlib.report.make import run_report as run_report
    from attnlib.report.mapping import DEFAULT_MODEL as DEFAULT_MODEL
    from attnlib.report.mapping import Mapped as Mapped
    from attnlib.report.mapping import map_picture as map_picture
    from attnlib.report.notebooks import find_notebook as find_notebook
    from attnlib.report.notebooks import notebook_names as notebook_names
    from attnlib.report.panels import Still as Still
    from attnlib.report.panels import layers_panel as layers_panel
    from attnlib.report.panels import legend_table as legend_table
    from attnlib.report.panels import map_panel as map_panel
    from attnlib.report.panels import origin as origin
    from attnlib.report.panels import profile_panel as profile_panel
    from attnlib.report.panels import said_panel as said_panel
    from attnlib.report.panels import viewer_panel as viewer_panel


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'attnlib.report' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
