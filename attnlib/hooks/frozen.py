"""Parameters as constants: a forward pass whose graph reaches the attention calls and no further.

A backward pass to the outputs of attention needs no gradient of any weight. As long as weights take
part as parameters, though, every linear map keeps its input for one; as constants it does not, which
is more than half of the graph of a vision transformer.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

__all__ = ["ParametersAsConstants"]


class ParametersAsConstants(TorchFunctionMode):
    """Hand a model's parameters to torch functions as detached tensors, in this thread and inside the block.

    No flag of the model is changed: other threads that run or train it meanwhile see nothing of this.

    Parameters
    ----------
    module : the model. Make the mode before any other is entered, so that no other sees the detaching.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._constants = {id(one): one.detach() for one in module.parameters() if not is_lazy(one)}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call with constants in place of parameters."""
        return func(*self._constant(args), **self._constant(kwargs or {}))

    def _constant(self, values: Any) -> Any:
        """Return arguments with every parameter detached, also inside lists."""
        if isinstance(values, nn.Parameter):
            return self._constants.get(id(values), values)
        if isinstance(values, dict):
            return {key: self._constant(value) for key, value in values.items()}
        if type(values) in (list, tuple):
            return type(values)(self._constant(value) for value in values)
        return values
