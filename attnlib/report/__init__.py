"""papermill and nbconvert: one notebook in, one self-contained HTML file and a manifest out."""

from attnlib.report.folder import find_pictures as find_pictures
from attnlib.report.folder import run_reports as run_reports
from attnlib.report.make import run_report as run_report
from attnlib.report.notebooks import find_notebook as find_notebook
from attnlib.report.notebooks import notebooks as notebooks
from attnlib.report.panels import Still as Still
from attnlib.report.panels import legend_table as legend_table
from attnlib.report.panels import origin as origin

__all__ = [
    "Still",
    "find_notebook",
    "find_pictures",
    "legend_table",
    "notebooks",
    "origin",
    "run_report",
    "run_reports",
]
