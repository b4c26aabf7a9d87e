"""In a notebook, what an opening needs is loaded while the hand rests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module

from attnlib.collector import paused

__all__ = ["STEPS", "load_beforehand"]

_REST = 0.1


def load_beforehand(steps: Sequence[Callable[[], object]] | None = None) -> bool:
    """Load libraries of the usual explorer between two cells of a notebook, one after another.

    transformers alone takes three seconds to load. A notebook imports in one cell and opens in another:
    the kernel loads when it has nothing else to do, on its own thread, and a cell that comes meanwhile
    waits as long as it would have taken to load by itself. Outside of a notebook nothing happens.

    Parameters
    ----------
    steps : what to do, in order; a step that fails is left to whoever needs it.

    Returns
    -------
    Whether anything will be loaded.
    """
    if "ipykernel" not in sys.modules:
        return False
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # imported by a thread, or by a kernel without a loop
        return False
    waiting = list(STEPS if steps is None else steps)

    def go_on() -> None:
        step = waiting.pop(0)
        with suppress(Exception):
            step()
        if waiting:
            loop.call_later(_REST, go_on)

    loop.call_later(_REST, go_on)
    return True


def _models() -> None:
    with paused():
        import_module("attnlib.models.saliency")
        import_module("attnlib.models.packages").required("onnx", extra="models")


def _finders() -> None:
    import_module("attnlib.finders.libraries").load()


STEPS = (_models, _finders)
