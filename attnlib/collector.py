"""Load large libraries without Python's garbage collector looking through them again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["paused"]


@contextmanager
def paused() -> Iterator[None]:
    """Let the garbage collector rest while libraries are loaded, and give it back as it was.

    A library such as transformers makes half a million objects that stay. The collector, which starts anew
    after every few hundred, takes a quarter of the time of loading it and finds nothing. What was made
    meanwhile is put among the old objects, where the next full collection looks: nothing is kept from it.
    Where the collector is off already, or the program has frozen objects of its own, its part is left to it.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:
            gc.freeze()
            gc.unfreeze()  # together: young objects become old ones, without a look at each of them
        gc.enable()
