"""run_report: one notebook and its parameters in, one HTML file and a manifest out."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attnlib
from attnlib.errors import ReportError
from attnlib.report.export import to_page
from attnlib.report.manifest import manifest
from attnlib.report.notebooks import find_notebook, notebook_parameters, open_notebook
from attnlib.report.outputs import count_figures, provenance
from attnlib.report.parameters import checked
from attnlib.report.running import FailedNotebookError, run_notebook

if TYPE_CHECKING:
    import nbformat

__all__ = ["ready", "run_report", "written"]

_PREFIX = ".attnlib-"
"""Beginning of the names of files that are not whole yet."""


def run_report(
    notebook: str | os.PathLike[str],
    output: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None = None,
    *,
    timeout: float | int | None = 1800,
    show_code: bool = False,
    progress: bool = False,
) -> Path:
    """Run a notebook and write what it shows to one HTML file that needs no network.

    Beside ``NAME.html`` stands ``NAME.json``, the manifest: parameters, model, versions, hash of the
    picture. Nothing is written before all of it is there; what stood there before stays if the notebook
    fails, and the notebook as far as it ran is kept as ``NAME.failed.ipynb``.

    Parameters
    ----------
    notebook : a file, or the name of a notebook that comes with attnlib, such as "90_report".
    output : the HTML file to write; its folder is made.
    parameters : values for the cell tagged ``parameters``; the others keep their defaults.
    timeout : seconds that one cell may take; None = no limit.
    show_code : print the code too.
    progress : show a progress bar on standard error.

    Returns
    -------
    The HTML file.

    Raises
    ------
    ReportError
        If a parameter is unknown or has a wrong type, or nothing can be written there (before anything
        runs), a cell fails, or the notebook shows no figure.
    """
    started = time.monotonic()
    source = find_notebook(os.fspath(notebook))
    target = Path(output)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"a report is an .html file, got {target.name!r}")
    opened = open_notebook(source)
    known = notebook_parameters(opened)
    given = checked(known, parameters or {})
    ready(target)
    aside = target.with_suffix(".failed.ipynb")
    try:
        ran = run_notebook(opened, given, timeout=timeout, progress=progress)
        figures = count_figures(ran)
        if figures == 0:
            raise FailedNotebookError(f"{source.name} ran, but shows no figure", ran)
        colophon = f"Made by attnlib {attnlib.__version__} from the notebook {source.name}."
        page = _page(ran, colophon, show_code)
    except FailedNotebookError as error:
        written(aside, json.dumps(error.partial, indent=1, ensure_ascii=False) + "\n")
        message = f"{error}\nThe notebook as far as it ran: {aside}"
        raise FailedNotebookError(message, error.partial, error.kind) from None
    about = manifest(
        notebook=source.name,
        parameters={**{one.name: one.default for one in known}, **given},
        provenance=provenance(ran),
        figures=figures,
        seconds=time.monotonic() - started,
        page=page,
        file=target.name,
    )
    told = json.dumps(about, indent=2, default=str) + "\n"
    _all_written({target.with_suffix(".json"): told, target: page})
    aside.unlink(missing_ok=True)
    return target


def _page(ran: nbformat.NotebookNode, colophon: str, show_code: bool) -> str:
    try:
        return to_page(ran, colophon=colophon, show_code=show_code)
    except ReportError as error:
        raise FailedNotebookError(str(error), ran) from None


def ready(target: Path) -> None:
    """Make the folder of a file that will be written, and find out now whether it can be.

    Raises
    ------
    ReportError
        If the file cannot be written there.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=_PREFIX):
            pass
        target.exists()  # a name that is too long for the disk is told here
    except (FileExistsError, NotADirectoryError):
        raise ReportError(f"cannot write {target}: a file stands where its folder should be") from None
    except OSError as error:
        raise ReportError(f"cannot write {target}: {error.strerror or error}") from None
    if target.is_dir():
        raise ReportError(f"cannot write {target}: there is a folder of that name")


def written(target: Path, content: str | bytes) -> Path:
    """Write a file, whole or not at all; text as UTF-8."""
    _all_written({target: content})
    return target


def _all_written(files: Mapping[Path, str | bytes]) -> None:
    """Write files that belong together: none takes its place before all are on the disk."""
    held: dict[str, Path] = {}
    try:
        for target, content in files.items():
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=_PREFIX)
            held[temporary] = target
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
            os.chmod(temporary, 0o644)
        for temporary, target in held.items():
            os.replace(temporary, target)
    except BaseException:
        for temporary in held:
            Path(temporary).unlink(missing_ok=True)
        raise
