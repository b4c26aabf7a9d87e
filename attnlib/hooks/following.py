"""Which attention call comes after which: followed through the tensors of a forward pass.

Calls that are made one after the other need not read one another: heads that are modules of their own,
parallel branches and twin towers stand side by side, and must never be multiplied like layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["Following"]


class Following:
    """Remember for each tensor the last attention call of this pass that it depends on.

    0 stands for none, None for not known: a tensor that came from nowhere, or was changed behind its back.

    Parameters
    ----------
    model : its parameters and buffers depend on no call.
    """

    def __init__(self, model: nn.Module) -> None:
        held = (*model.parameters(), *model.buffers())
        known = [one for one in held if not is_lazy(one) and one.layout is torch.strided]
        self._fixed = {one.untyped_storage().data_ptr() for one in known}
        self._made: dict[int, tuple[ref[Tensor], int | None, int]] = {}
        self.calls = 0

    def begin(self, inputs: Iterable[Tensor]) -> None:
        """Start a forward pass with these inputs."""
        self.calls = 0
        self._made.clear()
        for one in inputs:
            self._put(one, 0)

    def after(self, *values: Any) -> int | None:
        """Return the last call that any of some tensors depends on, lists of tensors included."""
        last = 0
        for value in values:
            if isinstance(value, Tensor):
                found = self._of(value)
            elif isinstance(value, list | tuple):
                found = self.after(*value)
            else:
                continue
            if found is None:
                return None
            last = max(last, found)
        return last

    def call(self, output: Tensor) -> int:
        """Count an attention call with this output; return its number."""
        self.calls += 1
        self._put(output, self.calls)
        return self.calls

    def before_write(self, tensor: Tensor) -> int | None:
        """Return the last call that a tensor depended on before it was written to, a moment ago."""
        known = self._made.get(id(tensor))
        if known is None or known[0]() is not tensor or _version(tensor) != known[2] + 1:
            return None
        return known[1]

    def pass_on(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        """See a torch function that is no attention call."""
        made = args[0] if name == "__setitem__" else output
        tensors = [made] if isinstance(made, Tensor) else made if isinstance(made, list | tuple) else []
        if not tensors:
            return
        last = self.after(*args, *kwargs.values())
        for one in tensors:
            if isinstance(one, Tensor):
                self._put(one, last)

    def _put(self, tensor: Tensor, last: int | None) -> None:
        if tensor.is_floating_point() or tensor.is_complex():
            self._made[id(tensor)] = ref(tensor), last, _version(tensor)

    def _of(self, tensor: Tensor) -> int | None:
        known = self._made.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1] if known[2] == _version(tensor) else None
        if not (tensor.is_floating_point() or tensor.is_complex()) or isinstance(tensor, nn.Parameter):
            return 0
        return 0 if tensor.untyped_storage().data_ptr() in self._fixed else None


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
