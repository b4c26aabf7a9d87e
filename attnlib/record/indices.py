"""Indices of layers, heads and rows, and other numbers, in any form in which people give them."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from attnlib.errors import InputError

__all__ = ["Indices", "as_tensor", "bytes_allowed", "whole_numbers"]

Indices = SupportsIndex | Iterable[SupportsIndex]
"""One index, or several: a list, tuple, range, array or tensor."""


def as_tensor(given: Any, what: str) -> Tensor:
    """Return a tensor as it is; an array or nested lists as a tensor, whole numbers as floating ones.

    Raises
    ------
    InputError
        If it holds no numbers.
    """
    if isinstance(given, Tensor):
        return given
    try:
        made = torch.from_numpy(np.array(given, order="C"))  # a copy: arrays may be read-only or reversed
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} must be a tensor, got {type(given).__name__}: {error}") from None
    return made if made.is_floating_point() else made.to(torch.get_default_dtype())


def bytes_allowed(given: Any) -> int | None:
    """Return ``max_memory`` as a number of bytes; None = no limit of its own.

    Raises
    ------
    InputError
        If it is no number above 0.
    """
    if given is None:
        return None
    if isinstance(given, bool | str) or not isinstance(given, int | float | np.number) or not given > 0:
        raise InputError(f"max_memory is a number of bytes, such as 2e9; got {given!r}")
    return None if math.isinf(given) else int(given)


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
            raise InputError(f"{what} are chosen by their index, got {wanted!r}") from None
    if not found:
        raise InputError(f"empty selection of {what}: None means all")
    return found
