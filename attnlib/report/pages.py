"""Pages for a class: every notebook as one interactive HTML file that needs no network, and an index."""

from __future__ import annotations

import argparse
import html
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnlib.errors import AttnlibError, ReportError
from attnlib.report.make import run_report, written
from attnlib.report.notebooks import find_notebook, notebook_names, open_notebook
from attnlib.widgets.fragment import page

__all__ = ["Lesson", "index_page", "read_lesson", "render_pages"]


@dataclass(frozen=True)
class Lesson:
    """What the first cell of a notebook says about it.

    Parameters
    ----------
    name : file name without its suffix.
    title : its heading.
    question : the sentence below the heading.
    audience : for whom, and how many minutes.
    """

    name: str
    title: str
    question: str = ""
    audience: str = ""


def read_lesson(path: str | os.PathLike[str]) -> Lesson:
    """Read title, question and audience from the first cell of a notebook."""
    path = Path(path)
    cells = [cell.source for cell in open_notebook(path).cells if cell.cell_type == "markdown"]
    lines = [line.strip() for line in (cells[0] if cells else "").splitlines() if line.strip()]
    title = next((line.lstrip("# ") for line in lines if line.startswith("#")), path.stem)
    said = [line for line in lines if not line.startswith("#")]
    audience = " ".join(line.strip("*") for line in said if line.startswith("*"))
    question = " ".join(line for line in said if not line.startswith("*"))
    return Lesson(path.stem, title, question, audience)


def index_page(lessons: Sequence[Lesson], failed: Sequence[str] = ()) -> str:
    """Return the page that leads to the others; links are relative, words are escaped."""
    rows = "".join(
        f'<tr><td><a href="{html.escape(one.name)}.html">{html.escape(one.title)}</a></td>'
        f"<td>{html.escape(one.question)}</td><td>{html.escape(one.audience)}</td></tr>"
        for one in lessons
    )
    missing = "".join(f"<li>{html.escape(words)}</li>" for words in failed)
    body = (
        "<p>Every page is one file: it opens by a double click and needs no network and no kernel. "
        "Pictures with controls are alive: slide through layers and heads, click a patch.</p>"
        "<table><thead><tr><th>lesson</th>"
        f"<th>question</th><th>for whom</th></tr></thead><tbody>{rows}</tbody></table>"
    )
    return page("Attention, in pages", body + (f"<h2>Not rendered</h2><ul>{missing}</ul>" if missing else ""))


def render_pages(
    folder: str | os.PathLike[str],
    *,
    notebooks: Sequence[str] | None = None,
    show_code: bool = True,
    progress: bool = False,
) -> Path:
    """Run notebooks with their default parameters and write each as a page, with an index.

    A notebook that fails is named in the index and does not stop the others.

    Parameters
    ----------
    folder : where the pages go; it is made.
    notebooks : names or files; None = all that come with attnlib.
    show_code : print the code too.
    progress : say on standard error what is being done.

    Returns
    -------
    The index page.

    Raises
    ------
    ReportError
        If a notebook failed; the others and the index have been written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = list(notebook_names().values()) if notebooks is None else [find_notebook(n) for n in notebooks]
    if not paths:
        raise ReportError("no notebook was named: None means all")
    lessons, failed = [], []
    for number, path in enumerate(paths, start=1):
        if progress:
            print(f"[{number}/{len(paths)}] {path.stem}", file=sys.stderr, flush=True)  # noqa: T201
        try:
            run_report(path, target / f"{path.stem}.html", show_code=show_code)
            lessons.append(read_lesson(path))
        except AttnlibError as error:
            first = re.sub(r"\s+", " ", str(error))[:300]
            failed.append(f"{path.stem}: {first}")
    index = written(target / "index.html", index_page(lessons, failed))
    if failed:
        raise ReportError(f"{len(failed)} of {len(paths)} notebooks failed: " + "; ".join(failed))
    return index


def main(arguments: Sequence[str] | None = None) -> int:
    """Render pages from the command line: ``python -m attnlib.report.pages FOLDER [NOTEBOOK...]``."""
    parser = argparse.ArgumentParser(prog="python -m attnlib.report.pages", description=__doc__)
    parser.add_argument("folder", help="where the pages go")
    parser.add_argument("notebooks", nargs="*", help="names or files; all that come with attnlib if omitted")
    parser.add_argument("--no-code", action="store_true", help="leave the code out")
    given = parser.parse_args(arguments)
    try:
        index = render_pages(
            given.folder, notebooks=given.notebooks or None, show_code=not given.no_code, progress=True
        )
    except AttnlibError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(index)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
