"""All notebooks as pages that open without a kernel and without a network, and an index of them.

``attnlib pages FOLDER`` renders every notebook with its default parameters.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

from attnlib.errors import AttnlibError
from attnlib.report.folder import page_address
from attnlib.report.make import ready, run_report, written
from attnlib.report.notebooks import notebook_names, open_notebook

__all__ = ["main", "make_pages", "write_pages"]


def make_pages(
    folder: Path,
    *,
    notebooks: Mapping[str, Path] | None = None,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Render notebooks with their code, and write ``index.html``.

    Parameters
    ----------
    folder : where the pages go.
    notebooks : name -> file; all that come with attnlib if omitted.
    progress : show a progress bar on standard error.
    tell : called with one line for each notebook.

    Returns
    -------
    Name -> "" if the page was made, or why it was not.
    """
    chosen = notebook_names() if notebooks is None else notebooks
    problems = {}
    for name, path in chosen.items():
        if tell is not None:
            tell(name)
        try:
            run_report(path, folder / f"{name}.html", show_code=True, progress=progress)
            problems[name] = ""
        except Exception as error:  # one notebook must not lose the others
            known = isinstance(error, AttnlibError)
            problems[name] = str(error) if known else f"{type(error).__name__}: {error}"
            if tell is not None:
                tell(f"{name} was not made: {problems[name]}")
    style = (Path(__file__).with_name("template") / "style.css").read_text()
    rows = "".join(_row(name, chosen[name], problem) for name, problem in problems.items())
    head = "<tr><th>notebook</th><th>question</th><th>for whom, minutes</th></tr>"
    written(
        folder / "index.html",
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Attention notebooks</title><style>{style}</style></head><body><main>"
        f"<h1>Attention notebooks</h1><table>{head}{rows}</table></main></body></html>\n",
    )
    return problems


def _row(name: str, path: Path, problem: str) -> str:
    try:
        title, question, audience = _about(path)
    except Exception:  # the notebook cannot be read: the problem says so
        if not problem:
            raise
        title, question, audience = name, "", ""
    link = f'<a href="{escape(page_address(name + ".html"), quote=True)}">{escape(title)}</a>'
    first = escape(title) + " (not made)" if problem else link
    return f"<tr><td>{first}</td><td>{escape(question)}</td><td>{escape(audience)}</td></tr>"


def _about(path: Path) -> tuple[str, str, str]:
    """Return title, question and audience from the first cell of a notebook."""
    blocks = [block.strip() for block in open_notebook(path).cells[0].source.split("\n\n")]
    title = blocks[0].lstrip("# ").strip()
    question = " ".join(blocks[1].replace("*", "").split()) if len(blocks) > 1 else ""
    audience = " ".join(blocks[2].strip("*").split()) if len(blocks) > 2 else ""
    return title, question, audience


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def write_pages(folder: Path) -> int:
    """Render all notebooks, say what became of them, and return the exit code.

    Raises
    ------
    ReportError
        If nothing can be written in the folder; before anything runs.
    """
    ready(folder / "index.html")
    problems = make_pages(folder, progress=True, tell=_tell)
    failed = [name for name, problem in problems.items() if problem]
    sys.stdout.write(f"pages: {folder / 'index.html'} ({len(problems) - len(failed)} of {len(problems)})\n")
    if failed:
        _tell(f"not made: {', '.join(failed)}")
    return 1 if failed else 0


def main() -> int:
    """Render all notebooks into the folder named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m attnlib.report.pages",
        description="Render every notebook of attnlib to an HTML page that needs no network, and an index.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("pages"), help="where they go (pages)")
    try:
        return write_pages(parser.parse_args().folder)
    except AttnlibError as error:
        _tell(f"attnlib: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
