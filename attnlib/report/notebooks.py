"""The notebooks that come with attnlib, and what they take."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from attnlib.errors import ReportError
from attnlib.report.parameters import Parameter, read_parameters

if TYPE_CHECKING:
    import nbformat

__all__ = ["NOTEBOOKS_FOLDERS", "find_notebook", "notebook_names", "notebook_parameters", "open_notebook"]

_PACKAGE = Path(__file__).resolve().parents[1]
NOTEBOOKS_FOLDERS = (_PACKAGE / "_notebooks", _PACKAGE.parent / "notebooks")
"""Where the notebooks lie: in the installed package, or beside it in a checkout."""


def notebook_names() -> dict[str, Path]:
    """Return the notebooks that come with attnlib: name -> file.

    Raises
    ------
    ReportError
        If they are not there.
    """
    for folder in NOTEBOOKS_FOLDERS:
        found = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
        if found:
            return found
    raise ReportError("the notebooks of attnlib are not installed: pass --notebook with a file of your own")


def find_notebook(name: str | Path) -> Path:
    """Return the file of a notebook: a path, or the name of one that comes with attnlib.

    Raises
    ------
    ReportError
        If there is neither.
    """
    path = Path(name)
    if path.suffix == ".ipynb" or len(path.parts) > 1:
        if path.is_file():
            return path
        if len(path.parts) > 1:
            raise ReportError(f"there is no notebook {path}")
    known = notebook_names()
    short = {stem.split("_", 1)[-1]: stem for stem in known}
    stem = path.stem if path.stem in known else short.get(path.stem)
    if stem is not None:
        return known[stem]
    near = difflib.get_close_matches(path.stem, [*known, *short], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ReportError(f"there is no notebook {str(name)!r}{hint}; attnlib brings {', '.join(known)}")


def open_notebook(path: str | Path) -> nbformat.NotebookNode:
    """Read a notebook file.

    Raises
    ------
    ReportError
        If the file is not a notebook.
    """
    import nbformat

    path = find_notebook(path)
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise ReportError(f"{path.name} is not a Jupyter notebook: {str(error).splitlines()[0]}") from None


def notebook_parameters(notebook: nbformat.NotebookNode) -> tuple[Parameter, ...]:
    """Return what a notebook takes, from its cell tagged ``parameters``; nothing without such a cell."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            return read_parameters(cell.source)
    return ()
