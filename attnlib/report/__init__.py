"""papermill and nbconvert: one notebook in, one self-contained HTML file and a manifest out."""

from attnlib.report.folder import find_pictures as find_pictures
from attnlib.report.folder import run_reports as run_reports
from attnlib.report.make import run_report as run_report
from attnlib.report.mapping import DEFAULT_MODEL as DEFAULT_MODEL
from attnlib.report.mapping import Mapped as Mapped
from attnlib.report.mapping import map_picture as map_picture
from attnlib.report.notebooks import find_notebook as find_notebook
from attnlib.report.notebooks import notebooks as notebooks
from attnlib.report.panels import Still as Still
from attnlib.report.panels import layers_panel as layers_panel
from attnlib.report.panels import legend_table as legend_table
from attnlib.report.panels import map_panel as map_panel
from attnlib.report.panels import origin as origin
from attnlib.report.panels import said_panel as said_panel

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
    "notebooks",
    "origin",
    "run_report",
    "run_reports",
    "said_panel",
]
