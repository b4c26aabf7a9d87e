"""A softmax that a model writes out: exponentials divided by their sum, or less their log-sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["STEPS", "WrittenSoftmax"]

_EXPONENTIALS = frozenset({"exp", "exp_"})
_QUOTIENTS = frozenset({"div", "div_", "__truediv__", "__itruediv__", "true_divide", "divide"})
_DIFFERENCES = frozenset({"sub", "sub_", "__sub__", "__isub__", "subtract"})
STEPS = frozenset({"log_softmax", "logsumexp", "sum"}) | _EXPONENTIALS | _QUOTIENTS | _DIFFERENCES


class WrittenSoftmax:
    """Follow the steps of a softmax that is written out by hand."""

    def __init__(self) -> None:
        self._exponentials: Any = WeakTensorKeyDictionary()  # exponentials -> scores
        self._sums: Any = WeakTensorKeyDictionary()  # sums -> exponentials, axis
        self._log_sums: Any = WeakTensorKeyDictionary()  # log-sums -> scores, axis
        self._logarithms: Any = WeakTensorKeyDictionary()  # logarithms of a softmax -> scores, axis

    def look(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
    ) -> tuple[Tensor, int] | None:
        """See a torch call whose name is in ``STEPS``.

        Returns
        -------
        The scores and the axis, if ``out`` is their softmax.
        """
        first = args[0] if args else kwargs.get("input")
        second = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("other"))
        if not isinstance(first, Tensor) or not isinstance(out, Tensor):
            return None
        if name in _EXPONENTIALS:
            known = self._logarithms.get(first)
            if known is not None:
                return known
            if out.dim() > 1:
                self._exponentials[out] = first.detach() if name == "exp" else out.detach()
        elif name == "log_softmax" and isinstance(second, int):
            self._logarithms[out] = first.detach(), second % first.dim()
        elif name in ("sum", "logsumexp"):
            axis = _axis(second, first.dim())
            if axis is not None and out.dim() == first.dim():  # the axis was kept, to divide by
                if name == "logsumexp":
                    self._log_sums[out] = first, axis
                elif self._exponentials.get(first) is not None:
                    self._sums[out] = first, axis
        elif name in _DIFFERENCES and isinstance(second, Tensor):
            known = self._log_sums.get(second)
            if known is not None and known[0] is first:
                self._logarithms[out] = first.detach(), known[1]
        elif name in _QUOTIENTS and isinstance(second, Tensor):
            known = self._sums.get(second)
            if known is not None and known[0] is first:
                return self._exponentials[first], known[1]
        return None


def _axis(given: Any, count: int) -> int | None:
    if isinstance(given, list | tuple) and len(given) == 1:
        given = given[0]
    return given % count if isinstance(given, int) and not isinstance(given, bool) else None
