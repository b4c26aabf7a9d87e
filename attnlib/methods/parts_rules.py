r"""Rules by which a state that is a sum of vectors, one per source token, passes any torch function.

Beside the real tensors of a run, the parts of those that depend on the decomposed state are carried:

.. math::
    x = \sum_k x_k \;\Rightarrow\; f(x) = \sum_k f_k, \qquad
    \text{affine: } f_k = W x_k + \omega_k b, \qquad
    \text{activation: } f_k = \frac{f(x)}{x} x_k, \qquad
    \text{norm, attention: deviation and weights as computed}

with :math:`\omega_k \propto |b^\top W x_k|`, as DecompX shares out biases.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from attnlib.errors import BudgetError
from attnlib.methods.lrp_rules import ELEMENTWISE, LENGTHS, LINEAR, PRODUCTS
from attnlib.methods.torch_calls import flat, name_of, named, out_of_place

__all__ = ["EPS", "PartsRules", "at_value", "shared"]

EPS = 1e-12
LARGEST = 2**32
_CHUNK = 2**25
_NOT_AFFINE = frozenset(("relu", "amax", "max", "maximum", "embedding", "get", "requires_grad"))
_AFFINE = (LINEAR - _NOT_AFFINE) | {"batch_norm"}
_SLOPED = ELEMENTWISE | {"relu"}
_CHANNELS_FIRST = ("conv", "batch_norm")
_ONLY_VALUES = frozenset(("scaled_dot_product_attention", "multi_head_attention_forward"))
_FIRST_ALONE = frozenset(("expand_as", "reshape_as", "to", "type_as", "view_as"))  # the others show how
_NO_NUMBERS = frozenset(("size", "dim", "numel", "requires_grad", "detach"))


class PartsRules:
    """The rules, for one run of a model.

    Parameters
    ----------
    begin : value of the tensor whose parts are known.
    parts : its parts; they add up to it, but for rows nobody reads.
    until : value of a tensor whose parts are wanted, or None.
    """

    def __init__(
        self, begin: Tensor, parts: Float[Tensor, "source *shape"], *, until: Tensor | None = None
    ) -> None:
        self._begin: Tensor | None = begin
        self._first = parts
        self._until = until
        self._parts: Any = WeakIdKeyDictionary()
        self.reached: Tensor | None = None
        self.lost: dict[str, None] = {}

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a torch function, and carry the parts of what it reads to what it computes.

        Raises
        ------
        BudgetError
            If the parts of a result would not fit in memory.
        """
        read = {id(one): one for one in flat((args, kwargs)) if one in self._parts}
        found = self._carried(func, args, kwargs, list(read.values())) if read else None
        out = func(*args, **kwargs)
        results = out if isinstance(out, tuple | list) else (out,)
        if read and found is not None:
            for one, parts in zip(results, found, strict=False):
                if isinstance(one, Tensor):
                    self._parts[one] = parts
        if isinstance(out, Tensor):
            self._mark(out)
        return out

    def activation(self, given: Tensor, output: Tensor) -> Tensor:
        """Carry parts through a module that is an element-wise activation."""
        if given in self._parts:
            self._parts[output] = self._parts[given] * (output / (given + EPS))
        return output

    def of(self, tensor: Tensor) -> Tensor | None:
        """Return the parts of a tensor, or None if it does not depend on the decomposed one."""
        return self._parts.get(tensor)

    def _mark(self, out: Tensor) -> None:
        if self._begin is not None and at_value(out, self._begin):
            self._parts[out], self._begin = self._first, None
        if self._until is not None and out in self._parts and at_value(out, self._until):
            self.reached, self._until = self._parts[out], None

    def _carried(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], read: list[Tensor]
    ) -> list[Tensor] | None:
        """Return the parts of each result; None where the result counts as a constant."""
        name, plain = name_of(func), out_of_place(func)
        if name in _FIRST_ALONE:
            read = [one for one in read if one is args[0]]
            return self._affine(plain, args, kwargs, read, name) if read else None
        if name in _SLOPED and args:
            real = args[0]
            return [self._parts[real] * (plain(real, *args[1:], **kwargs) / (real + EPS))]
        if name in ("layer_norm", "rms_norm"):
            return [self._normed(name, args, kwargs)]
        if name in LENGTHS and args and args[0] in self._parts:
            return [self._along(plain, args, kwargs)]
        if name in ("mul", "multiply") and len(args) == 2:
            return [self._multiplied(args[0], args[1])]
        if name in ("div", "divide", "true_divide"):
            if args[0] not in self._parts:
                return self._dropped(name)
            return self._affine(plain, args, kwargs, [args[0]], name)
        if name == "normalize":
            given = named(("input", "p", "dim", "eps"), args, kwargs)
            real, order, axis = given["input"], given.get("p", 2.0), given.get("dim", 1)
            length = torch.linalg.vector_norm(real, order, axis, keepdim=True)
            return [self._parts[real] / length.clamp(min=given.get("eps", 1e-12))]
        if name in _ONLY_VALUES:
            return self._attended(plain, args, kwargs, name)
        if name == "get":  # a property, such as x.T
            return self._affine(plain, args, kwargs, read, name) if _tensors(func(*args)) else None
        if name in PRODUCTS:
            return self._affine(plain, args, kwargs, read, name) if len(read) == 1 else self._dropped(name)
        if name in _AFFINE and not (name == "batch_norm" and _in_training(args, kwargs)):
            return self._affine(plain, args, kwargs, read, name)
        return None if name in _NO_NUMBERS else self._dropped(name)

    def _dropped(self, name: str) -> None:
        """Count a result as a constant; if that matters, the parts do not add up in the end."""
        self.lost[name] = None

    def _attended(self, func: Any, args: Any, kwargs: Any, name: str) -> list[Tensor] | None:
        """Carry the parts of the values through attention, whose weights stay as computed."""
        values = args[2] if len(args) > 2 else kwargs["value"]
        if values not in self._parts:
            return self._dropped(name)

        def run(given: Tensor) -> Tensor:
            if len(args) > 2:
                out = func(*args[:2], given, *args[3:], **kwargs)
            else:
                out = func(*args, **{**kwargs, "value": given})
            return out if isinstance(out, Tensor) else out[0]

        if name != "scaled_dot_product_attention":
            return self._affine(run, (values,), {}, [values], name)
        stacked = self._parts[values].movedim(0, -2).flatten(-2)  # all sources side by side, as one width
        return [run(stacked).unflatten(-1, (-1, values.shape[-1])).movedim(-2, 0)]

    def _multiplied(self, left: Any, right: Any) -> Tensor:
        both = left in self._parts and right in self._parts if _tensors(left, right) else False
        if both:
            axes = max(left.dim(), right.dim())
            one, other = (_with_axes(self._parts[x], axes) for x in (left, right))
            return (one * right + other * left) / 2
        moving, factor = (left, right) if isinstance(left, Tensor) and left in self._parts else (right, left)
        axes = max(moving.dim(), factor.dim() if isinstance(factor, Tensor) else 0)
        return _with_axes(self._parts[moving], axes) * factor

    def _normed(self, name: str, args: Any, kwargs: Any) -> Tensor:
        words = ("input", "normalized_shape", "weight", "bias", "eps")
        given = named(words if name == "layer_norm" else (*words[:3], "eps"), args, kwargs)
        real = given["input"]
        axes = tuple(range(-len(given["normalized_shape"]), 0))
        parts = self._parts[real]
        eps = given.get("eps")
        if name == "layer_norm":
            parts = parts - parts.mean(dim=axes, keepdim=True)
            spread = real.var(dim=axes, unbiased=False, keepdim=True) + (1e-5 if eps is None else eps)
        else:
            eps = torch.finfo(real.dtype).eps if eps is None else eps
            spread = real.square().mean(dim=axes, keepdim=True) + eps
        parts = parts / spread.sqrt()
        parts = parts if given.get("weight") is None else parts * given["weight"]
        shift = given.get("bias")
        return parts if shift is None else shared(parts, shift.expand(real.shape))

    def _along(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """Return how far each part goes in the direction of the whole: that adds up to its length."""

        def step(part: Tensor) -> Tensor:
            return torch.func.jvp(lambda whole: func(whole, *args[1:], **kwargs), (args[0],), (part,))[1]

        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "`torch.jit", FutureWarning
            )  # torch, when it loads its own rules
            return torch.stack([step(part) for part in self._parts[args[0]]])

    def _affine(
        self, func: Callable[..., Any], args: Any, kwargs: Any, moving: list[Tensor], name: str
    ) -> list[Tensor]:
        """Carry parts through a function that is affine in the tensors that move."""
        places = {id(one): number for number, one in enumerate(moving)}

        def run(*given: Tensor) -> Any:
            return func(*_replaced(args, places, given), **_replaced(kwargs, places, given))

        stacks = [self._parts[one] for one in moving]
        bases = run(*(torch.zeros_like(one) for one in moving))
        single = isinstance(bases, Tensor)
        bases = [bases] if single else list(bases)
        count = len(stacks[0])
        size = sum(one.numel() for one in bases)
        if 2 * size * count * bases[0].element_size() > LARGEST:
            raise BudgetError(
                f"decompx: {name!r} makes {size:,} numbers, each of them kept for {count} source tokens, "
                f"about {size * count * bases[0].element_size() / 2**30:.0f} GB: use fewer tokens (a smaller "
                "picture), one item at a time, or globenc or alti"
            )
        carried = _over_sources(run, stacks, max(1, _CHUNK // max(1, size)))
        axis = 1 if name.startswith(_CHANNELS_FIRST) else -1
        return [shared(one - base, base, axis) for one, base in zip(carried, bases, strict=True)]


def at_value(out: Tensor, value: Tensor) -> bool:
    """Tell whether a tensor is the one that was computed in the capture."""
    if out.shape != value.shape or not out.is_floating_point():
        return False
    allowed = 1e-5 if value.dtype in (torch.float32, torch.float64) else 2e-2
    scale = float(value.abs().max())
    if float((out.flatten()[:8] - value.flatten()[:8]).abs().max()) > allowed * scale:
        return False
    return float((out - value).abs().max()) <= allowed * scale


def shared(
    parts: Float[Tensor, "source *shape"], bias: Float[Tensor, "*shape"], axis: int = -1
) -> Float[Tensor, "source *shape"]:
    """Share out what belongs to no part among them, by the absolute value of their dot products with it.

    Parameters
    ----------
    parts : one per source.
    bias : what is shared out.
    axis : of ``bias``, along which a vector runs; numbers that are no vectors are shared one by one.
    """
    if not bool(bias.any()):
        return parts
    if bias.dim() == 1:
        weights = (parts * bias).abs()
    elif axis == -1:
        weights = torch.einsum("s...d,...d->s...", parts, bias).abs()[..., None]
    else:
        weights = (parts * bias).sum(dim=axis + 1, keepdim=True).abs()
    return parts + weights / (weights.sum(dim=0, keepdim=True) + EPS) * bias


def _over_sources(run: Callable[..., Any], stacks: list[Tensor], size: int) -> list[Tensor]:
    """Run a function for every source; several at once where torch can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that one of them is slow when batched
            made = torch.func.vmap(run, chunk_size=size)(*stacks)
        return [made] if isinstance(made, Tensor) else list(made)
    except (RuntimeError, ValueError, TypeError):
        rows = [run(*given) for given in zip(*stacks, strict=True)]
    if isinstance(rows[0], Tensor):
        return [torch.stack(rows)]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def _replaced(values: Any, places: dict[int, int], given: tuple[Tensor, ...]) -> Any:
    if isinstance(values, Tensor):
        return given[places[id(values)]] if id(values) in places else values
    if isinstance(values, dict):
        return {key: _replaced(value, places, given) for key, value in values.items()}
    if type(values) in (tuple, list):
        return type(values)(_replaced(value, places, given) for value in values)
    return values


def _in_training(args: Any, kwargs: Any) -> bool:
    words = ("input", "running_mean", "running_var", "weight", "bias", "training")
    return bool(named(words, args, kwargs).get("training"))


def _with_axes(parts: Tensor, axes: int) -> Tensor:
    """Put axes of size 1 after the source axis, so that the others are aligned from the right."""
    missing = axes + 1 - parts.dim()
    return parts.reshape(len(parts), *[1] * missing, *parts.shape[1:]) if missing > 0 else parts


def _tensors(*values: Any) -> bool:
    return all(isinstance(one, Tensor) for one in values)
