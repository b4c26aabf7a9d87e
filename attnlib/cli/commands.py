"""What each command does; it gets what was typed and returns the exit code."""

from __future__ import annotations

import argparse
import difflib
import io
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attnlib.errors import AttnlibError

__all__ = ["UsageError", "describe", "lab", "methods", "models", "overlay", "pages", "report"]


class UsageError(AttnlibError):
    """The command cannot be carried out as typed."""


def report(chosen: argparse.Namespace) -> int:
    """Run a notebook on pictures, or list its parameters."""
    from attnlib.report.folder import find_pictures, run_reports
    from attnlib.report.make import run_report
    from attnlib.report.notebooks import find_notebook, notebook_parameters, open_notebook
    from attnlib.report.parameters import parse

    if chosen.output.suffix.lower() in (".html", ".htm"):
        raise UsageError(f"-o takes the folder where pages go, got the file name {str(chosen.output)!r}")
    source = find_notebook(chosen.notebook)
    known = notebook_parameters(open_notebook(source))
    if chosen.parameters:
        print(f"parameters of {source.name}:")
        print("\n".join(f"  {parameter}" for parameter in known))
        return 0
    try:
        values = {name: parse(known, name, text) for name, text in _pairs(chosen.values)}
    except AttnlibError as error:
        raise UsageError(str(error)) from None
    takes_picture = any(one.name == "picture" for one in known)
    if chosen.pictures and not takes_picture:
        raise UsageError(f"{source.name} has no parameter 'picture': call it without IMAGE")
    if not chosen.pictures and "picture" not in values and chosen.notebook == "90_report":
        raise UsageError("which picture? For example: attnlib report photo.jpg")
    options = {"progress": not chosen.quiet, "show_code": chosen.code}
    if not chosen.pictures:
        page = run_report(source, chosen.output / f"{source.stem}.html", values, **options)
        print(f"report: {page}")
        return 0
    pictures = find_pictures(chosen.pictures)
    made = run_reports(pictures, chosen.output, notebook=source, parameters=values, tell=_say, **options)
    done = [one.report for one in made if one.report is not None]
    if len(made) > 1:
        print(f"index: {chosen.output / 'index.html'} ({len(done)} of {len(made)} reports made)")
    elif done:
        print(f"report: {done[0]}")
    return 0 if len(done) == len(made) else 1


def overlay(chosen: argparse.Namespace) -> int:
    """Write the picture with the map as a PNG."""
    from attnlib.report.folder import short_stem
    from attnlib.report.make import ready, written

    stem = short_stem(Path(chosen.picture.removeprefix("sample:")))
    target = chosen.output or Path(f"{stem}.overlay.png")
    if target.is_dir():
        target = target / f"{stem}.overlay.png"
    if target.suffix.lower() != ".png":
        raise UsageError(f"the overlay is a PNG file, got {target.name!r}")
    ready(target)
    mapped = _mapped(chosen)
    from attnlib.viz import overlay_image

    image = overlay_image(
        mapped.relevance,
        mapped.picture,
        bands=mapped.bands,
        style=chosen.style,
        palette=chosen.palette,
        opacity=chosen.opacity,
        legend=not chosen.no_legend,
    )
    file = io.BytesIO()
    image.save(file, "PNG")
    print(f"overlay: {written(target, file.getvalue())}")
    return 0


def describe(chosen: argparse.Namespace) -> int:
    """Print the interpretation."""
    from attnlib import find_regions, interpret

    mapped = _mapped(chosen)
    regions = None
    if not chosen.no_parts:
        _say("looking for text and faces ...")
        regions = find_regions(mapped.picture)
    told = interpret(mapped.relevance, regions, said=mapped.said)
    print(told.to_json() if chosen.json else told.to_text())
    return 0


def _mapped(chosen: argparse.Namespace) -> Any:
    from attnlib.picture import load_picture
    from attnlib.report.parameters import Parameter, parse

    picture = load_picture(chosen.picture)  # what is no picture is told before PyTorch is waited for
    open_options = {name: parse((Parameter(name, None),), name, text) for name, text in _pairs(chosen.values)}
    _say("loading PyTorch and the model ...")
    from attnlib.methods import METHODS
    from attnlib.report.mapping import DEFAULT_MODEL, map_picture

    if chosen.method is not None and chosen.method not in METHODS:
        raise UsageError(_no_method(chosen.method, METHODS))

    for note in picture.notes:
        _say(f"{picture.name}: {note}")
    mapped = map_picture(
        picture,
        model=chosen.model or DEFAULT_MODEL,
        method=chosen.method,
        query=_query(chosen.query),
        target=_query(chosen.target),
        size=chosen.size,
        options=open_options,
    )
    for note in (note for view in mapped.relevance.views for note in view.notes):
        _say(f"{picture.name}: {note}")
    used = mapped.relevance.method
    if chosen.target is not None and not METHODS[used].explains_target:
        _say(f"--target {chosen.target} changes nothing: {used} explains no target (see `attnlib methods`)")
    return mapped


def _query(text: str | None) -> Any:
    """Read a query: a word, a token index, or row,column."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if all(part.lstrip("-").isdigit() for part in parts) and len(parts) <= 2:
        numbers = tuple(int(part) for part in parts)
        return numbers[0] if len(numbers) == 1 else numbers
    return text


def models(_: argparse.Namespace) -> int:
    """Print the models at hand."""
    from attnlib.models import MODELS

    for name, card in MODELS.items():
        print(name)
        extra = f'needs: pip install "attnlib[{card.extra}]"' if card.extra else ""
        for line in (card.summary, f"source: {card.source}; licence: {card.licence}", extra):
            if line:
                print(textwrap.fill(line, 96, initial_indent="  ", subsequent_indent="  "))
    print("any other: a hub id, a local folder, timm:NAME or torchvision:NAME")
    return 0


def methods(chosen: argparse.Namespace) -> int:
    """Print the methods, or the card of one."""
    from attnlib.methods import METHODS

    if chosen.name:
        if chosen.name not in METHODS:
            raise UsageError(_no_method(chosen.name, METHODS))
        print(METHODS[chosen.name].to_text(), end="")
        return 0
    width = max(map(len, METHODS))
    for name, card in METHODS.items():
        print(f"{name:<{width}}  {card.family:<13}  {card.title}")
    print("\nattnlib methods NAME explains one: formula, paper, options.")
    return 0


def _no_method(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"there is no method {name!r}{hint}; there are {', '.join(known)}"


def lab(chosen: argparse.Namespace) -> int:
    """Open JupyterLab on the notebooks."""
    import shutil
    import subprocess

    from attnlib.report.notebooks import notebook_names

    folder = next(iter(notebook_names().values())).parent
    if chosen.output is not None or folder.name == "_notebooks":
        # notebooks inside the installed package are not for editing: work on copies
        target = chosen.output or Path("attnlib-notebooks")
        target.mkdir(parents=True, exist_ok=True)
        for path in notebook_names().values():
            if not (target / path.name).exists():
                shutil.copyfile(path, target / path.name)
        folder = target
    print(f"notebooks: {folder}", file=sys.stderr)
    return subprocess.call([sys.executable, "-m", "jupyterlab", str(folder), *chosen.words])


def pages(chosen: argparse.Namespace) -> int:
    """Render all notebooks to pages."""
    from attnlib.report.pages import write_pages

    return write_pages(chosen.folder)


def _pairs(values: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"-p takes NAME=VALUE, got {value!r}")
        pairs.append((name, text))
    return pairs


def _say(line: str) -> None:
    print(line, file=sys.stderr)
