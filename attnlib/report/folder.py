"""Many pictures: one report each, and a page that leads to them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from attnlib.errors import AttnlibError, ReportError
from attnlib.picture import load_picture, sample
from attnlib.report.make import ready, run_report, written
from attnlib.report.thumbnail import thumbnail

__all__ = ["Made", "find_pictures", "page_address", "run_reports", "short_stem", "write_index"]

# HEIC cannot be read here: its line in the index says so, where leaving it out would hide a picture
_SUFFIXES = {".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

_LONGEST = 200
"""Bytes of a picture's name that go into the name of its page."""
_FOR_ALL = ("ModelError", "MissingPackageError")
"""Errors that do not depend on the picture: the first one stands for all."""
_BRACKETS = re.compile(
    r" ?In brackets: multiple of the even share; share of all the (?:attention|relevance)\."
)
"""What every summary ends with; an index says it once."""
_NOTE = "<p>In brackets: multiple of the even share; share of all the attention or relevance.</p>"
_WIDEST = 48
"""Letters of a picture's name that are shown in the index."""


@dataclass(frozen=True)
class Made:
    """What became of one picture.

    Parameters
    ----------
    name : of the picture, without folders; what is not UTF-8 in it is written as ?.
    report : the page; None if it failed.
    problem : why it failed, first line; "" if it did not.
    """

    name: str
    report: Path | None
    problem: str = ""


def find_pictures(sources: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the picture files among files, samples and folders, folders sorted by name, none twice.

    Of a folder, hidden files and folders inside it are left out.

    Raises
    ------
    ReportError
        If a source does not exist, or a folder holds no picture.
    """
    found: dict[Path, None] = {}
    for name in (os.fspath(one) for one in sources):
        source = sample(name.removeprefix("sample:")) if name.startswith("sample:") else Path(name)
        if source.is_dir():
            inside = [one for one in sorted(source.iterdir()) if _is_picture(one)]
            if not inside:
                raise ReportError(f"the folder {source} holds no picture ({', '.join(sorted(_SUFFIXES))})")
            found.update(dict.fromkeys(inside))
        elif source.is_file():
            found[source] = None
        else:
            raise ReportError(f"there is no picture {source}")
    return list(found)


def run_reports(
    pictures: Sequence[Path],
    folder: Path,
    *,
    notebook: str | os.PathLike[str] = "90_report",
    parameters: Mapping[str, Any] | None = None,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> list[Made]:
    """Make a report of each picture; a picture that fails does not stop the others.

    Parameters
    ----------
    pictures : picture files.
    folder : where the pages go.
    notebook : as for :func:`run_report`; its parameter ``picture`` gets the picture.
    parameters, progress : as for :func:`run_report`.
    tell : called with a line before each picture, if progress is asked for, and for each that fails.
    options : further options of :func:`run_report`.

    Returns
    -------
    What became of each picture, in the same order. With several pictures, ``index.html`` leads to them, and
    to the pages of earlier runs in that folder; an index that is there gets the line of a single picture too.

    Raises
    ------
    ReportError
        If there are several pictures and nothing can be written in the folder.
    """
    tell = tell or _silent
    if len(pictures) > 1:
        ready(folder / "index.html")  # told once, not for every picture
    made = []
    for number, (picture, stem) in enumerate(zip(pictures, _stems(pictures), strict=True), start=1):
        name = _utf8(picture)
        if progress:
            tell(f"[{number}/{len(pictures)}] {name}")
        chosen = {**(parameters or {}), "picture": str(picture.resolve())}
        try:
            _check(picture)
            report = run_report(notebook, folder / f"{stem}.html", chosen, progress=progress, **options)
            made.append(Made(name, report))
        except AttnlibError as error:
            made.append(Made(name, None, str(error)))
            tell(str(error) if repr(name) in str(error) else f"{name}: {error}")
            rest = pictures[number:]
            if rest and getattr(error, "kind", "") in _FOR_ALL:
                tell(f"so would the pictures after it ({len(rest)}): they were left out")
                made += [Made(_utf8(one), None, str(error)) for one in rest]
                break
    if len(pictures) > 1 or (folder / "index.json").is_file():
        write_index(made, folder)
    return made


def write_index(made: Sequence[Made], folder: Path, *, title: str = "Attention reports") -> Path:
    """Write ``index.html`` and ``index.json`` with a line for each report.

    Lines of an index that is there stay, as long as their pages do.

    Parameters
    ----------
    made : what became of each picture.
    folder : where the pages are.
    title : heading of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    style = (Path(__file__).with_name("template") / "style.css").read_text()
    lines = [*_earlier(folder, made), *made]
    rows = []
    for one in lines:
        if one.report is None:
            rows.append(
                f"<tr><td>{_shown(one.name)}</td><td></td><td>failed: {escape(_first(one.problem))}</td></tr>"
            )
        else:
            link = escape(page_address(one.report.name), quote=True)
            small = thumbnail(one.report)
            image = f'<img style="max-width:none" src="{small}" alt="">' if small else ""
            rows.append(
                f'<tr><td><a href="{link}">{_shown(one.name)}</a></td>'
                f"<td>{image}</td><td>{_summary(one.report)}</td></tr>"
            )
    note = _NOTE if any(_BRACKETS.search(row) for row in rows) else ""
    rows = [_BRACKETS.sub("", row) for row in rows]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main><h1>{escape(title)}</h1>"
        f"{note}<table><tr><th>picture</th><th></th><th>in short</th></tr>{''.join(rows)}</table>"
        "</main></body></html>\n"
    )
    about = [
        {"picture": one.name, "report": one.report and one.report.name, "problem": _first(one.problem)}
        for one in lines
    ]
    written(folder / "index.json", json.dumps(about, indent=2) + "\n")
    return written(folder / "index.html", page)


def _earlier(folder: Path, made: Sequence[Made]) -> list[Made]:
    """Return the lines of the index that is there whose pages still stand and were not made anew."""
    try:
        lines = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        kept = [Made(str(one["picture"]), folder / one["report"]) for one in lines if one["report"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []  # none, or a file of somebody else's
    new = {one.report for one in made}
    return [
        one
        for one in kept
        if (page := one.report) and page not in new and page.is_file() and page.with_suffix(".json").is_file()
    ]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def _check(picture: Path) -> None:
    """Tell in a sentence, before a kernel starts, what is no picture or cannot be passed on."""
    try:
        os.fspath(picture).encode()
    except UnicodeEncodeError:
        raise ReportError("the file name is not UTF-8: rename the file") from None
    load_picture(picture)


def _utf8(picture: Path) -> str:
    """Return the name of a picture; what is not UTF-8 in it as ?."""
    return picture.name.encode(errors="replace").decode()


def _silent(_: str) -> None:
    """Say nothing."""


def _stems(pictures: Sequence[Path]) -> list[str]:
    """Return a name for each report; pictures that differ only in folder or suffix get a number."""
    used: dict[str, int] = {"index": 1}
    stems = []
    for picture in pictures:
        stem = short_stem(picture)
        used[stem] = used.get(stem, 0) + 1
        while used[stem] > 1 and f"{stem}-{used[stem]}" in used:
            used[stem] += 1
        name = stem if used[stem] == 1 else f"{stem}-{used[stem]}"
        used.setdefault(name, 1)
        stems.append(name)
    return stems


def short_stem(picture: Path) -> str:
    """Return the name of a picture without its suffix, short enough to take a longer one."""
    return picture.stem.encode(errors="ignore")[:_LONGEST].decode(errors="ignore") or "picture"


def _shown(name: str) -> str:
    """Return a name for a table: the beginning of a long one."""
    return escape(name if len(name) <= _WIDEST else f"{name[: _WIDEST - 1]}\u2026")


def _summary(report: Path) -> str:
    """Return what the report's manifest says in short."""
    about = json.loads(report.with_suffix(".json").read_text())
    told = [one.get("in_short", "") for one in about.get("provenance", [])]
    return escape(" ".join(line for line in told if line))


def _first(text: str) -> str:
    return text.splitlines()[0] if text else ""


def page_address(name: str) -> str:
    """Return a file name as it stands in a link."""
    from urllib.parse import quote

    return quote(name)
