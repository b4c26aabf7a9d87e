"""The command line: attnlib report | overlay | describe | models | methods | lab."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attnlib
from attnlib.errors import AttnlibError

__all__ = ["main"]

_EPILOG = """\
examples:
  attnlib report photo.jpg                        one HTML page that opens without a network
  attnlib report holiday/ -o reports              one page for each picture, and an index
  attnlib report photo.jpg -p palette=colour-blind -p start_layer=8
  attnlib overlay photo.jpg -o overlay.png        only the picture with the map in bands
  attnlib describe photo.jpg --json               what the map says, for another program
  attnlib models                                  what runs here without a network
  attnlib methods rollout                         formula, paper and options of one method
  attnlib lab                                     JupyterLab on the notebooks

exit codes: 0 done, 1 the work failed, 2 the command was not understood, 130 stopped by Ctrl-C.
"""


class _Usage(AttnlibError):
    """The command cannot be carried out as typed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : words after ``attnlib``; those of this process if omitted.

    Returns
    -------
    0 done, 1 the work failed, 2 the command was not understood, 130 stopped by Ctrl-C.
    """
    try:
        chosen = _parser().parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        return chosen.run(chosen)
    except _Usage as error:
        print(f"attnlib: {error}", file=sys.stderr)
        return 2
    except AttnlibError as error:
        print(f"attnlib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("attnlib: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of our output (head, less) has gone; nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # a full disk, a folder that may not be written: the system's own words say what
        print(f"attnlib: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attnlib",
        description="Show where a transformer looks, in four bands over the picture and in words bound to "
        "numbers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"attnlib {attnlib.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_report(commands)
    _add_overlay(commands)
    _add_describe(commands)
    _command(commands, "models", "List the models at hand without a network.", _models)
    methods = _command(commands, "methods", "List the methods, or explain one.", _methods)
    methods.add_argument("name", nargs="?", metavar="NAME", help="the method to explain, such as rollout")
    lab = _command(
        commands,
        "lab",
        "Open JupyterLab on the notebooks of attnlib.",
        _lab,
        "attnlib lab\n"
        "attnlib lab -o my-notebooks                         on copies of your own, which are kept\n"
        "attnlib lab -- --no-browser --port 8890",
    )
    lab.add_argument("-o", "--output", type=Path, metavar="DIR", help="where your copies of the notebooks go")
    lab.add_argument("words", nargs="*", metavar="-- ARGUMENT", help="passed on to JupyterLab")
    return parser


def _command(commands: Any, name: str, help: str, run: Any, example: str = "") -> argparse.ArgumentParser:
    one = commands.add_parser(
        name,
        help=help,
        description=help,
        epilog=f"examples:\n{textwrap.indent(example, '  ')}\n" if example else "",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.set_defaults(run=run)
    return one


def _add_report(commands: Any) -> None:
    report = _command(
        commands,
        "report",
        "Run a notebook on pictures and write one HTML page for each.",
        _report,
        "attnlib report photo.jpg\n"
        "attnlib report a.png b.png holiday/ -o reports      also writes reports/index.html\n"
        "attnlib report photo.jpg -p model=timm:vit_small_patch16_224\n"
        "attnlib report photo.jpg --notebook 02_rollout_step_by_step --code\n"
        "attnlib report --parameters                         what -p takes",
    )
    report.add_argument(
        "pictures", nargs="*", metavar="IMAGE", help="picture, folder of pictures, or sample:poster"
    )
    report.add_argument(
        "--notebook", default="90_report", metavar="NB", help="a file, or a notebook of attnlib (90_report)"
    )
    report.add_argument(
        "-p",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="values",
        help="set a parameter of the notebook; may be given several times",
    )
    report.add_argument(
        "-o", "--output", type=Path, default=Path("reports"), metavar="DIR", help="where pages go (reports)"
    )
    report.add_argument("--parameters", action="store_true", help="list the parameters of the notebook")
    report.add_argument("--code", action="store_true", help="print the code cells too")
    report.add_argument("-q", "--quiet", action="store_true", help="no progress, only the result")


def _add_overlay(commands: Any) -> None:
    overlay = _command(
        commands,
        "overlay",
        "Write one PNG: the picture with the map, and its legend.",
        _overlay,
        "attnlib overlay photo.jpg\n"
        "attnlib overlay photo.jpg -o map.png --palette colour-blind\n"
        "attnlib overlay photo.jpg --method raw --style continuous",
    )
    _add_map_options(overlay)
    overlay.add_argument(
        "-o", "--output", type=Path, metavar="PNG", help="file or folder (IMAGE.overlay.png)"
    )
    overlay.add_argument(
        "--style", choices=("bands", "continuous"), default="bands", help="four bands, or every value (bands)"
    )
    overlay.add_argument(
        "--palette", choices=("bands", "colour-blind"), default="bands", help="colours of the bands (bands)"
    )
    overlay.add_argument("--opacity", type=_opacity, default=0.55, metavar="0..1", help="of the map (0.55)")
    overlay.add_argument("--no-legend", action="store_true", help="only the picture with the map")


def _opacity(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _add_describe(commands: Any) -> None:
    describe = _command(
        commands,
        "describe",
        "Say in words and numbers where the model looked.",
        _describe,
        "attnlib describe photo.jpg\nattnlib describe photo.jpg --json > photo.json",
    )
    _add_map_options(describe)
    describe.add_argument("--json", action="store_true", help="for another program")
    describe.add_argument("--no-parts", action="store_true", help="do not look for text and faces")


def _add_map_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("picture", metavar="IMAGE", help="picture file, or sample:poster")
    command.add_argument("--model", metavar="NAME", help="see `attnlib models` (dinov2-small-saliency)")
    command.add_argument(
        "--method",
        metavar="NAME",
        help="see `attnlib methods`; by default gradient_rollout for a model with labels, rollout for others",
    )
    command.add_argument("--query", metavar="TOKEN", help="class, mean, a token index, or row,column")
    command.add_argument("--target", metavar="LABEL", help="what a gradient method explains: label or index")
    command.add_argument(
        "--size", type=int, metavar="PIXELS", help="longer side of the model input (the model's own)"
    )
    command.add_argument(
        "-p", action="append", default=[], metavar="NAME=VALUE", dest="values", help="an option of the method"
    )


def _report(chosen: argparse.Namespace) -> int:
    from attnlib.report.folder import find_pictures, run_reports
    from attnlib.report.make import run_report
    from attnlib.report.notebooks import find_notebook, notebook_parameters, open_notebook
    from attnlib.report.parameters import parse

    if chosen.output.suffix.lower() in (".html", ".htm"):
        raise _Usage(f"-o takes the folder where pages go, got the file name {str(chosen.output)!r}")
    source = find_notebook(chosen.notebook)
    known = notebook_parameters(open_notebook(source))
    if chosen.parameters:
        print(f"parameters of {source.name}:")
        print("\n".join(f"  {parameter}" for parameter in known))
        return 0
    try:
        values = {name: parse(known, name, text) for name, text in _pairs(chosen.values)}
    except AttnlibError as error:
        raise _Usage(str(error)) from None
    takes_picture = any(one.name == "picture" for one in known)
    if chosen.pictures and not takes_picture:
        raise _Usage(f"{source.name} has no parameter 'picture': call it without IMAGE")
    if not chosen.pictures and "picture" not in values and chosen.notebook == "90_report":
        raise _Usage("which picture? For example: attnlib report photo.jpg")
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


def _overlay(chosen: argparse.Namespace) -> int:
    from attnlib.report.folder import short_stem
    from attnlib.report.make import ready, written

    stem = short_stem(Path(chosen.picture.removeprefix("sample:")))
    target = chosen.output or Path(f"{stem}.overlay.png")
    if target.is_dir():
        target = target / f"{stem}.overlay.png"
    if target.suffix.lower() != ".png":
        raise _Usage(f"the overlay is a PNG file, got {target.name!r}")
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


def _describe(chosen: argparse.Namespace) -> int:
    from attnlib import find_regions, interpret

    mapped = _mapped(chosen)
    _say("looking for text and faces ..." if not chosen.no_parts else "")
    regions = None if chosen.no_parts else find_regions(mapped.picture)
    told = interpret(mapped.relevance, regions, said=mapped.said)
    print(told.to_json() if chosen.json else told.to_text())
    return 0


def _mapped(chosen: argparse.Namespace) -> Any:
    from attnlib.report.parameters import Parameter, parse

    open_options = {name: parse((Parameter(name, None),), name, text) for name, text in _pairs(chosen.values)}
    _say("loading PyTorch and the model ...")
    from attnlib.methods import METHODS
    from attnlib.report.mapping import DEFAULT_MODEL, map_picture

    if chosen.method is not None and chosen.method not in METHODS:
        raise _Usage(_no_method(chosen.method, METHODS))

    return map_picture(
        chosen.picture,
        model=chosen.model or DEFAULT_MODEL,
        method=chosen.method,
        query=_query(chosen.query),
        target=_query(chosen.target),
        size=chosen.size,
        options=open_options,
    )


def _query(text: str | None) -> Any:
    """Read a query: a word, a token index, or row,column."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if all(part.lstrip("-").isdigit() for part in parts) and len(parts) <= 2:
        numbers = tuple(int(part) for part in parts)
        return numbers[0] if len(numbers) == 1 else numbers
    return text


def _models(_: argparse.Namespace) -> int:
    from attnlib.models import MODELS

    for name, card in MODELS.items():
        print(name)
        extra = f'needs: pip install "attnlib[{card.extra}]"' if card.extra else ""
        for line in (card.summary, f"source: {card.source}; licence: {card.licence}", extra):
            if line:
                print(textwrap.fill(line, 96, initial_indent="  ", subsequent_indent="  "))
    print("any other: a hub id, a local folder, timm:NAME or torchvision:NAME")
    return 0


def _methods(chosen: argparse.Namespace) -> int:
    from attnlib.methods import METHODS

    if chosen.name:
        if chosen.name not in METHODS:
            raise _Usage(_no_method(chosen.name, METHODS))
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


def _lab(chosen: argparse.Namespace) -> int:
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


def _pairs(values: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.isidentifier():
            raise _Usage(f"-p takes NAME=VALUE, got {value!r}")
        pairs.append((name, text))
    return pairs


def _say(line: str) -> None:
    if line:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
