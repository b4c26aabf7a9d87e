"""How much a capture may keep, and what to say before it is too much."""

from __future__ import annotations

from collections.abc import Sequence

from attnlib.errors import BudgetError, InputError
from attnlib.hooks.calls import Call

__all__ = ["Budget"]


class Budget:
    """Count the bytes that are kept, and refuse before there are too many.

    Parameters
    ----------
    max_memory : bytes that may be kept; None = no limit.
    gradients : whether outputs are kept as well.
    """

    def __init__(self, max_memory: int | None, *, gradients: bool) -> None:
        if max_memory is not None and (not isinstance(max_memory, int) or max_memory <= 0):
            raise InputError(f"max_memory must be a positive number of bytes, got {max_memory!r}")
        self._limit = max_memory
        self._gradients = gradients
        self.used = 0
        self._calls = 0

    def chosen_heads(self, wanted: Sequence[int], call: Call) -> list[int]:
        """Return the wanted heads of one call, counted from the start."""
        total = call.source.shape[1]
        outside = [i for i in wanted if not -total <= i < total]
        if outside:
            raise InputError(f"heads {outside} are outside the {total} heads of {call.name}")
        return [i % total for i in wanted]

    def add(self, call: Call) -> None:
        """Count a call.

        Raises
        ------
        BudgetError
            If keeping it would exceed the limit; says what the whole capture is expected to need.
        """
        size = call.source.nbytes
        if self._gradients:
            batch, heads, queries, _ = call.source.shape
            size += batch * heads * queries * call.source.values([0]).shape[-1] * 4
        self._calls += 1
        self.used += size
        if self._limit is None or self.used <= self._limit:
            return
        raise BudgetError(
            f"keeping the attention of {call.name} (call {self._calls}) needs {_megabytes(self.used)} in all "
            f"so far, {_megabytes(size)} for this call; max_memory allows {_megabytes(self._limit)}. Keep "
            f"fewer layers= or heads=, use a smaller input, or allow about {_megabytes(size)} for each layer"
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
