"""The command line: attnlib report | overlay | describe | models | methods | lab | pages."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from attnlib.cli.commands import UsageError
from attnlib.cli.parser import command_parser
from attnlib.errors import AttnlibError

__all__ = ["main"]


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
        chosen = command_parser().parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        return chosen.run(chosen)
    except UsageError as error:
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
