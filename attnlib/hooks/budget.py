"""How much a capture may hold, and what to say before it is too much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from attnlib.errors import BudgetError
from attnlib.hooks.calls import Call

__all__ = ["Budget", "tensors_of"]


class Budget:
    """Count the bytes that are held, and refuse before there are too many.

    Memory is counted by storage, as the machine does: a mask that all layers share counts once, and a
    view counts with everything it keeps alive. The activations that autograd keeps are the model's own
    and are not counted.

    Parameters
    ----------
    model : the module that runs, to say how many calls are still to come.
    max_memory : bytes that may be held; None = no limit.
    gradients : whether a gradient of each output will be held as well.
    num_layers : how many layers were asked for; None = all.
    """

    def __init__(
        self, model: nn.Module, max_memory: int | None, *, gradients: bool, num_layers: int | None
    ) -> None:
        self.limit = max_memory
        self._model = model
        self._gradients = gradients
        self._num_layers = num_layers
        self._settled: dict[int, int] = {}
        self._settled_extra = 0

    def settle(self, calls: Sequence[Call]) -> None:
        """Count the calls of the passes that have ended."""
        if self.limit is not None:
            self._settled, self._settled_extra = self._count(calls)

    def check(self, calls: Sequence[Call]) -> None:
        """Count the calls of this pass besides the settled ones.

        Raises
        ------
        BudgetError
            If they hold more than the limit; says what the whole capture is expected to need.
        """
        if self.limit is None or not calls:
            return
        held, extra = self._count(calls)
        used = sum({**self._settled, **held}.values()) + self._settled_extra + extra
        if used <= self.limit:
            return
        last = calls[-1]
        own, more = self._count([last])
        size = sum(own.values()) + more
        alike = sum(type(one) is type(last.frame.module) for one in self._model.modules())
        count = max(1, alike if self._num_layers is None else min(alike, self._num_layers))
        raise BudgetError(
            f"the attention of {last.name} would need {_megabytes(used)} so far ({_megabytes(size)} for "
            f"this call); max_memory allows {_megabytes(self.limit)}. The whole capture is expected to need "
            f"about {_megabytes(max(used, size * count))} ({count} modules like this one): allow that, keep "
            "fewer layers=, heads= or queries=, or use a smaller input"
        )

    def _count(self, calls: Sequence[Call]) -> tuple[dict[int, int], int]:
        held: dict[int, int] = {}
        extra = 0
        for call in calls:
            for tensor in tensors_of(call.source):
                storage = tensor.untyped_storage()
                held[storage.data_ptr()] = storage.nbytes()
            if self._gradients and call.source.kind_of_source != "released":
                extra += call.gradient_bytes
        return held, extra


def tensors_of(source: Any) -> Iterator[Tensor]:
    """Return the tensors that a source of weights holds, also inside its parts."""
    if isinstance(source, Tensor):
        yield source
    elif isinstance(source, tuple | list):
        for one in source:
            yield from tensors_of(one)
    elif is_dataclass(source):
        for field in fields(source):
            yield from tensors_of(getattr(source, field.name))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
