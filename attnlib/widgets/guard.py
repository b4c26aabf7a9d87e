"""Reactions of an explorer: one at a time, and what fails is told where the hand is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import ipywidgets as widgets

from attnlib.widgets.telling import problem

__all__ = ["Guard"]


class Guard:
    """Wraps reactions: they wait for one another, and their errors are shown in place, in words.

    Parameters
    ----------
    lock : of what the reactions change.
    place : where an error is shown; the next reaction clears it.
    """

    def __init__(self, lock: AbstractContextManager[Any], place: widgets.HTML) -> None:
        self._lock, self._place = lock, place
        self._reacting = False

    def __call__(self, react: Callable[..., None]) -> Callable[..., None]:
        """Return the reaction, guarded."""

        @functools.wraps(react)
        def guarded(*given: Any) -> None:
            with self._lock:
                first, self._reacting = not self._reacting, True  # one reaction may set off others
                if first and self._place.value:
                    self._place.value = ""
                try:
                    react(*given)
                except Exception as error:
                    self._place.value = problem(error)
                finally:
                    self._reacting = not first

        return guarded
