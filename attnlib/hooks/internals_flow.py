"""Flow: which tensor came from which, as the forward pass runs.

A function mode notes every torch function with the steps it read from. What a step computed is kept
only where a block is taken apart later: sums, and the output of linear maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakIdKeyDictionary

from attnlib.errors import BudgetError

__all__ = ["Flow", "Step", "activation_of", "bare_name", "linear_of", "tensors_in"]

_SAMPLE = 64
LINEAR = ("linear", "addmm", "multi_head_attention_forward")
NORMS = ("layer_norm", "native_layer_norm")
SAME = (
    "dropout", "alpha_dropout", "feature_dropout", "contiguous", "to", "type_as", "float", "double", "clone",
    "detach", "view", "reshape", "flatten", "unflatten", "view_as", "transpose", "permute", "squeeze",
    "unsqueeze", "swapaxes", "requires_grad", "identity",
)  # fmt: skip


@dataclass(eq=False, repr=False)
class Step:
    """One call of a torch function.

    Parameters
    ----------
    name : of the function, without underscores.
    number : position in the order of steps.
    parents : the steps whose results it read, in the order of its arguments.
    function, args, kwargs : the call; only for linear maps, norms, activations and scalings.
    value : what it computed, where that is kept.
    terms : the two summands of a sum, with the steps they came from.
    sample, shape : the first values of what it computed, and its shape.
    """

    name: str
    number: int
    parents: tuple[Step, ...] = ()
    children: list[Step] = field(default_factory=list)
    function: Any = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    value: Tensor | None = None
    terms: tuple[tuple[Tensor, Step | None], ...] = ()
    sample: Tensor | None = None
    shape: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"{self.number}:{self.name}"


def bare_name(function: Any) -> str:
    """Return the name of a torch function without underscores: ``Tensor.add_`` is "add"."""
    return (getattr(function, "__name__", "") or resolve_name(function) or "unknown").strip("_")


def _changes_first(function: Any) -> bool:
    name = getattr(function, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments, lists of tensors included."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


class Flow(TorchFunctionMode):
    """Note the functions that a forward pass calls, and where their results go.

    Parameters
    ----------
    max_memory : bytes that may be held; None = no limit.
    num_maps : linear maps that the model has, to say how much all would need.

    Raises
    ------
    BudgetError
        As soon as more would be held.
    """

    def __init__(self, *, max_memory: int | None = None, num_maps: int = 0) -> None:
        super().__init__()
        self._limit = max_memory
        self._num_maps = num_maps
        self._held: dict[int, int] = {}
        self._maps = 0
        self.steps: list[Step] = []
        self._made: Any = WeakIdKeyDictionary()

    def step_of(self, tensor: Any) -> Step | None:
        """Return the step that computed a tensor; None for parameters and inputs."""
        return self._made.get(tensor) if isinstance(tensor, Tensor) else None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call and note it."""
        kwargs = kwargs or {}
        read = list(tensors_in(args)) + list(tensors_in(kwargs))
        parents = tuple(step for step in map(self.step_of, read) if step is not None)
        in_place = _changes_first(func)
        if in_place:
            self._keep_from_change(read)
        name = bare_name(func)
        terms = self._terms(name, args, in_place)
        out = func(*args, **kwargs)
        made = [one for one in (out if isinstance(out, tuple | list) else (out,)) if isinstance(one, Tensor)]
        if made:
            self._note(Step(name, len(self.steps), parents, terms=terms), func, args, kwargs, made)
        return out

    def _note(self, step: Step, func: Any, args: Any, kwargs: Any, made: list[Tensor]) -> None:
        first = made[0]
        if step.terms or step.name in LINEAR:
            step.value = first.detach()
        if step.name in (*LINEAR, *NORMS, "mul", "getitem", "select") or _is_elementwise(step, first, args):
            step.function, step.args, step.kwargs = func, _without_data(step.name, args), _no_data(kwargs)
        if first.is_floating_point() and first.dim() > 1:
            step.sample, step.shape = first.detach().flatten()[:_SAMPLE].clone(), tuple(first.shape)
        for parent in step.parents:
            parent.children.append(step)
        self.steps.append(step)
        if self._limit is not None:
            self._check(step, self._limit)
        for one in made:
            if not isinstance(one, torch.nn.Parameter):
                self._made[one] = step

    def _check(self, step: Step, limit: int) -> None:
        """Refuse once more is held than allowed; memory is counted by storage."""
        self._maps += step.name in LINEAR
        kept = [step.value, *(one for one, _ in step.terms)]
        for one in kept:
            if one is not None:
                self._held[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        used = sum(self._held.values())
        if used > limit:
            whole = used * max(1.0, self._num_maps / max(1, self._maps))
            raise BudgetError(
                f"internals=True would keep {used / 1e6:.1f} MB so far to take the blocks apart; max_memory "
                f"allows {limit / 1e6:.1f} MB. The whole pass is expected to need about {whole / 1e6:.1f} "
                "MB: allow that, use a smaller input, or a method that needs no internals"
            )

    def _terms(
        self, name: str, args: tuple[Any, ...], in_place: bool
    ) -> tuple[tuple[Tensor, Step | None], ...]:
        if name != "add" or len(args) < 2:
            return ()
        left, right = args[:2]
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return ()
        if not left.is_floating_point() or left.dim() < 2 or left.shape[-1:] != right.shape[-1:]:
            return ()
        first = left.detach().clone() if in_place else left.detach()
        return ((first, self.step_of(left)), (right.detach(), self.step_of(right)))

    def _keep_from_change(self, read: list[Tensor]) -> None:
        """Copy what was kept of a tensor that is about to be changed in place."""
        step = self.step_of(read[0]) if read else None
        if step is not None and step.value is not None:
            step.value = step.value.clone()


def _is_elementwise(step: Step, out: Tensor, args: tuple[Any, ...]) -> bool:
    return (
        len(step.parents) == 1
        and step.name not in SAME
        and bool(args)
        and isinstance(args[0], Tensor)
        and args[0].shape == out.shape
    )


def _without_data(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Drop the activations among arguments, keep weights and numbers."""
    keep_first = name == "addmm"
    kept = []
    for position, value in enumerate(args):
        data = position == (1 if keep_first else 0) and isinstance(value, Tensor)
        if name == "multi_head_attention_forward" and position < 3:
            data = True
        if name == "mul":
            data = isinstance(value, Tensor) and value.dim() > 1 and value.numel() != value.shape[-1]
        kept.append(None if data else value)
    return tuple(kept)


def _no_data(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in ("input", "query", "key", "value")}


def activation_of(step: Step) -> Any:
    """Return the element-wise function of a step, to be called with another tensor."""

    def activation(x: Tensor) -> Tensor:
        return step.function(x, *step.args[1:], **step.kwargs)

    activation.__name__ = step.name
    return activation


def linear_of(step: Step) -> tuple[Tensor, Tensor | None] | None:
    """Return weight [out, in] and bias of a linear step; None for any other step."""
    if step.name not in LINEAR or step.function is None:
        return None
    if step.function is functional.multi_head_attention_forward:
        return step.args[11], step.args[12]
    if step.name == "addmm":
        scaled = step.kwargs.get("alpha", 1) != 1 or step.kwargs.get("beta", 1) != 1
        return None if scaled or step.args[0].dim() != 1 else (step.args[2].T, step.args[0])
    weight = step.args[1] if len(step.args) > 1 else step.kwargs.get("weight")
    bias = step.args[2] if len(step.args) > 2 else step.kwargs.get("bias")
    return None if weight is None or weight.dim() != 2 else (weight, bias)
