"""In a notebook, what an opening needs is loaded while the hand rests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module

from attnlib.collector import paused

__all__ = ["STEPS", "load_beforehand"]

_REST = 1.0
_BREATH = 0.1
_LATE = 0.05


def load_beforehand(steps: Sequence[Callable[[], object]] | None = None) -> bool:
    """Load libraries of the usual explorer between two cells of a notebook, one after another.

    transformers alone takes three seconds to load. A notebook imports in one cell and opens in another:
    the kernel loads when it has had nothing to do for a second, on its own thread. Cells that run
    one after another are not held up: after each of them the rest begins anew. A cell that comes while a
    library is loaded waits for that one only. Outside of a notebook nothing happens.

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

    def rest(left: float) -> None:
        if waiting:
            pause = min(_BREATH, left)
            loop.call_later(pause, go_on, loop.time() + pause, left - pause)

    def go_on(due: float, left: float) -> None:
        if loop.time() - due > _LATE:  # the loop comes late when a cell has run meanwhile
            rest(_REST)
        elif left > 1e-6:
            rest(left)
        else:
            with suppress(Exception):
                waiting.pop(0)()
            rest(_BREATH)

    rest(_REST)
    return True


def _library(name: str) -> None:
    with paused():
        import_module(name)


def _finders() -> None:
    import_module("attnlib.finders.libraries").load()


def _onnx() -> None:
    import_module("attnlib.models.packages").required("onnx", extra="models")


# what the module of the model loads by itself, in parts that each take less than a second
_PARTS = ("sympy", "scipy.optimize", "torch.distributed.tensor", "transformers", "torchvision")
STEPS = (*(partial(_library, name) for name in (*_PARTS, "attnlib.models.saliency")), _onnx, _finders)
