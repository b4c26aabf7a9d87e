"""Indices of layers, heads and rows, in any form in which people give them."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from attnlib.errors import InputError

__all__ = ["whole_numbers"]


def whole_numbers(wanted: Any, what: str) -> list[int]:
    """Return one index or several as a list of int.

    Parameters
    ----------
    wanted : an int, or a list, tuple, range, array or tensor of them.
    what : what they count, for the message.

    Raises
    ------
    InputError
        If one of them is no whole number (a mask of True and False is none), or there is none.
    """
    given = wanted.tolist() if hasattr(wanted, "tolist") else wanted
    several: list[Any] = (
        list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    )
    found = []
    for one in several:
        try:
            if isinstance(one, bool):
                raise TypeError
            found.append(operator.index(one))
        except TypeError:
            raise InputError(f"{what} are chosen by their index, got {one!r} in {wanted!r}") from None
    if not found:
        raise InputError(f"empty selection of {what}: None means all")
    return found
