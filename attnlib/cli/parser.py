"""What may be typed after ``attnlib``, and how it is explained."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attnlib
from attnlib.cli import commands as run

__all__ = ["command_parser"]

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
  attnlib pages class                             all notebooks as pages that need no kernel

exit codes: 0 done, 1 the work failed, 2 the command was not understood, 130 stopped by Ctrl-C.
"""


def command_parser() -> argparse.ArgumentParser:
    """Return the parser; what it returns holds the command to run as ``run``."""
    top = argparse.ArgumentParser(
        prog="attnlib",
        description="Show where a transformer looks, in four bands over the picture and in words bound to "
        "numbers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"attnlib {attnlib.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_report(commands)
    _add_overlay(commands)
    _add_describe(commands)
    _command(commands, "models", "List the models at hand without a network.", run.models)
    methods = _command(commands, "methods", "List the methods, or explain one.", run.methods)
    methods.add_argument("name", nargs="?", metavar="NAME", help="the method to explain, such as rollout")
    lab = _command(
        commands,
        "lab",
        "Open JupyterLab on the notebooks of attnlib.",
        run.lab,
        "attnlib lab\n"
        "attnlib lab -o my-notebooks                         on copies of your own, which are kept\n"
        "attnlib lab -- --no-browser --port 8890",
    )
    lab.add_argument("-o", "--output", type=Path, metavar="DIR", help="where your copies of the notebooks go")
    lab.add_argument("words", nargs="*", metavar="-- ARGUMENT", help="passed on to JupyterLab")
    pages = _command(
        commands,
        "pages",
        "Render all notebooks to pages that need no kernel and no network.",
        run.pages,
        "attnlib pages class                                 also writes class/index.html",
    )
    pages.add_argument(
        "folder", nargs="?", type=Path, default=Path("pages"), metavar="DIR", help="where they go (pages)"
    )
    return top


def _command(
    commands: Any, name: str, help: str, do: Callable[[argparse.Namespace], int], example: str = ""
) -> argparse.ArgumentParser:
    one = commands.add_parser(
        name,
        help=help,
        description=help,
        epilog=f"examples:\n{textwrap.indent(example, '  ')}\n" if example else "",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.set_defaults(run=do)
    return one


def _add_report(commands: Any) -> None:
    report = _command(
        commands,
        "report",
        "Run a notebook on pictures and write one HTML page for each.",
        run.report,
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
        run.overlay,
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
        run.describe,
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
