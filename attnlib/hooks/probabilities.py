"""Softmax outputs on their way to the values, for models that compute attention by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from attnlib.hooks.origin_rules import move
from attnlib.hooks.torch_names import EXACT, MIXERS, MOVES, SCALES, SUMS

__all__ = ["SOFTMAXES", "Probabilities", "Softmaxed"]

SOFTMAXES = frozenset({"softmax", "_softmax", "_safe_softmax", "special_softmax"})


@dataclass(eq=False)
class Softmaxed:
    """What came out of a softmax: which column of it stands at each place.

    Parameters
    ----------
    columns : column number at each place, in broadcast form; varies along the key axis only.
    total : columns of the softmax.
    serial : number of the softmax within the capture.
    exact : the softmax output in the dtype it was computed in, while nothing but casts happened.
    mixed : whether heads were mixed after the softmax, so that rows need not sum to 1.
    dropped : whether some of it was dropped at random.
    blank : rows in which every score is hidden by a mask; they are 0 in ``exact``.
    """

    columns: Tensor
    total: int
    serial: int
    exact: Tensor | None
    mixed: bool = False
    dropped: bool = False
    blank: int = 0


class Probabilities:
    """Follow softmax outputs until they meet the values."""

    def __init__(self) -> None:
        self._known: Any = WeakTensorKeyDictionary()
        self.serial = 0
        self.open: dict[int, str] = {}

    @property
    def any(self) -> bool:
        """Whether a softmax output is alive."""
        return len(self._known) > 0

    def get(self, tensor: Any) -> Softmaxed | None:
        """Return what is known about a tensor."""
        return self._known.get(tensor) if isinstance(tensor, Tensor) else None

    def begin(self, out: Tensor, axis: int, where: str, scores: Tensor | None = None) -> None:
        """Remember a softmax of ``scores`` over ``axis``."""
        if out.dim() < 2:
            return
        shape = [1] * out.dim()
        shape[axis] = out.shape[axis]
        columns = torch.arange(out.shape[axis]).view(shape)
        exact, blank = out.detach(), 0
        hidden = None if scores is None else _hidden_rows(scores.detach(), axis)
        if hidden is not None:
            exact, blank = torch.where(hidden, 0.0, exact), int(hidden.sum())
        self._known[out] = Softmaxed(columns, out.shape[axis], self.serial, exact, blank=blank)
        self.open[self.serial] = where
        self.serial += 1

    def follow(
        self, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
    ) -> None:
        """Pass what is known on to what was made from it."""
        first = args[0] if args else kwargs.get("input")
        if name == "einsum":
            self._einsum(args, out)
            return
        held = self.get(first)
        if held is not None and name == "pad" and first is not None and isinstance(out, Tensor):
            widths = args[1] if len(args) > 1 else kwargs["pad"]
            columns = functional.pad(held.columns.expand(first.shape), widths, value=-1)
            exact = None if held.exact is None else functional.pad(held.exact, widths)
            self._spread(out, columns, exact, held)
        elif held is not None and (name in MOVES or name == "__get__"):  # of properties, only those that turn
            self._move(held, func, args, kwargs, out)
        elif held is not None and first is not None and isinstance(out, Tensor) and out.shape == first.shape:
            if name in EXACT:
                dropped = "dropout" in name and _drops(args, kwargs)
                self._known[out] = replace(held, dropped=True) if dropped else held
            elif name in SCALES:
                self._known[out] = replace(held, exact=None)
            elif name in SUMS and len(args) > 1 and isinstance(args[1], Tensor):
                other = self.get(args[1])
                if other is not None and other.columns.shape == held.columns.shape:
                    self.open.pop(other.serial, None)
                    self._known[out] = replace(held, exact=None)
            elif name in MIXERS and held.columns.shape[-1] == 1:  # heads mixed after the softmax
                self._known[out] = replace(held, exact=None, mixed=True)
        elif (
            held is not None and name == "linear" and isinstance(out, Tensor) and held.columns.shape[-1] == 1
        ):
            self._known[out] = replace(held, exact=None, mixed=True)
        elif held is None and name in SCALES and len(args) > 1:
            other = self.get(args[1])
            if other is not None and isinstance(out, Tensor) and out.shape == args[1].shape:
                self._known[out] = replace(other, exact=None)

    def _einsum(self, args: Sequence[Any], out: Any) -> None:
        """Follow weights whose heads are mixed by an einsum that keeps the key axis."""
        equation = args[0]
        operands = list(args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:])
        if not isinstance(equation, str) or "..." in equation or "->" not in equation:
            return
        inputs, _, result = equation.replace(" ", "").partition("->")
        for letters, operand in zip(inputs.split(","), operands, strict=False):
            held = self.get(operand)
            if held is None or not isinstance(out, Tensor):
                continue
            axes = [axis for axis, size in enumerate(held.columns.shape) if size > 1]
            if len(axes) == 1 and letters[axes[0]] in result:
                shape = [1] * out.dim()
                shape[result.index(letters[axes[0]])] = held.columns.numel()
                self._known[out] = replace(held, columns=held.columns.reshape(shape), exact=None, mixed=True)
            return

    def _move(
        self, held: Softmaxed, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
    ) -> None:
        tensor = args[0] if args else kwargs["input"]
        try:
            columns = move(func, args, kwargs, tensor, held.columns)
        except (RuntimeError, TypeError, IndexError, ValueError):
            return
        exact = None
        if held.exact is not None and held.exact.shape == tensor.shape:
            exact = func(*[held.exact if a is tensor else a for a in args], **kwargs)
        self._spread(out, columns, exact, held)

    def _spread(self, out: Any, columns: Any, exact: Any, held: Softmaxed) -> None:
        if isinstance(out, Tensor) and isinstance(columns, Tensor) and columns.shape == out.shape:
            for axis, (size, stride) in enumerate(zip(columns.shape, columns.stride(), strict=True)):
                if size > 1 and stride == 0:
                    columns = columns.narrow(axis, 0, 1)
            kept = exact if isinstance(exact, Tensor) and exact.shape == out.shape else None
            self._known[out] = replace(held, columns=columns, exact=kept)
        elif isinstance(out, tuple | list) and isinstance(columns, tuple | list):
            pieces = exact if isinstance(exact, tuple | list) else [None] * len(out)
            for one, column, part in zip(out, columns, pieces, strict=False):
                self._spread(one, column, part, held)


def _hidden_rows(scores: Tensor, axis: int) -> Tensor | None:
    """Return the rows in which a mask of large negative numbers hides everything; None if there are none.

    The softmax spreads them evenly over keys that may not be seen. Rows of minus infinity are NaN in the
    model, and are left as they are.
    """
    if not scores.is_floating_point() or 0 in scores.shape:
        return None
    lowest = torch.finfo(scores.dtype).min
    low = (
        lowest / 2 if scores.dtype == torch.float16 else lowest / 1e6
    )  # a mask may be scaled with the scores
    if not bool((scores.select(axis, 0) <= low).any()):  # mostly the first key is seen by all
        return None
    top = scores.amax(dim=axis, keepdim=True)
    hidden = (top <= low) & (top >= lowest)
    return hidden if bool(hidden.any()) else None


def _drops(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a dropout with these arguments is active."""
    share = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
    active = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))
    return bool(active) and share > 0
