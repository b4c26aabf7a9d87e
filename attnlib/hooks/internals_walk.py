"""Walking along the steps of a forward pass, and comparing what is put together with what was computed."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlib.hooks.internals_flow import NORMS, SAME, Step, linear_of
from attnlib.record.internals import LinearMap, NormMap

__all__ = [
    "Unlike", "allowed", "comes_from", "compare", "constant_of", "detached", "folded", "is_look", "is_map",
    "norm_of", "only_norm", "onward", "origin", "parameter_term",
]  # fmt: skip

_TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}


class Unlike(Exception):
    """A block is built in a way that cannot be taken apart; the text says how."""


def is_map(step: Step) -> bool:
    """Tell whether a step is a linear map."""
    return linear_of(step) is not None


def is_look(step: Step) -> bool:
    """Tell whether a step only looks at a tensor: its result is read by nobody."""
    return not step.children and step.name not in ("add", *NORMS)


def constant_of(step: Step) -> Tensor | None:
    """Return what a multiplication multiplies by, if that is a number or one number a channel."""
    if len(step.parents) != 1:
        return None
    for value in step.args:
        if isinstance(value, Tensor):
            return value.detach().reshape(-1)
        if isinstance(value, int | float):
            return torch.tensor(float(value))
    return None


def parameter_term(step: Step) -> Tensor | None:
    """Return the summand of a sum that is one number a channel and was computed by nothing."""
    for value, source in step.terms:
        if source is None and value.numel() == value.shape[-1]:
            return value.reshape(-1)
    return None


def folded(output: LinearMap, factor: Tensor | None, shift: Tensor | None) -> LinearMap:
    """Return a linear map with a factor and a shift after it folded in."""
    weight, bias = output.weight, output.bias
    if factor is not None:
        factor = factor.to(weight)
        weight = weight * factor[:, None] if factor.numel() > 1 else weight * factor
        bias = None if bias is None else bias * factor
    if shift is not None:
        bias = shift.to(weight) if bias is None else bias + shift
    return LinearMap(weight, bias)


def origin(step: Step) -> Step:
    """Return the step that computed what this one only passes on."""
    while step.name in SAME and len(step.parents) == 1:
        step = step.parents[0]
    return step


def comes_from(step: Step, source: Step) -> bool:
    """Tell whether ``step`` depends on ``source``."""
    seen: set[int] = set()
    waiting = [step]
    while waiting:
        one = waiting.pop()
        if one is source:
            return True
        if one.number <= source.number or one.number in seen:
            continue
        seen.add(one.number)
        waiting.extend(one.parents)
    return False


def onward(step: Step) -> list[Step]:
    """Return the steps that read a result, looking through those that only pass it on."""
    found: list[Step] = []
    for child in step.children:
        if child.name in SAME:
            found += onward(child)
        elif child.children or child.terms or child.name in NORMS:
            found.append(child)
    return found


def only_norm(step: Step) -> NormMap | None:
    """Return the normalisation of a sum, if that is all that reads it."""
    readers = onward(step)
    return norm_of(readers[0]) if len(readers) == 1 else None


def norm_of(step: Step) -> NormMap | None:
    """Return the layer normalisation of a step, if it is one over the last axis."""
    if step.name not in NORMS:
        return None
    names = ("input", "normalized_shape", "weight", "bias", "eps")
    given = {**dict(zip(names, step.args, strict=False)), **step.kwargs}
    if len(given.get("normalized_shape", ())) != 1:
        return None
    gain, shift = given.get("weight"), given.get("bias")
    return NormMap(
        None if gain is None else gain.detach(),
        None if shift is None else shift.detach(),
        float(given.get("eps", 1e-5)),
    )


def detached(pair: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias without their graph."""
    return pair[0].detach(), None if pair[1] is None else pair[1].detach()


def allowed(real: Tensor) -> float:
    """Return how far values may differ by rounding, relative to the largest."""
    return _TOLERANCE.get(real.dtype, 2e-4)


def compare(rebuilt: Tensor, real: Tensor, what: str, scale_of: Tensor | None = None) -> float:
    """Return the largest difference relative to the real values.

    Raises
    ------
    Unlike
        If it is larger than rounding explains.
    """
    if rebuilt.shape != real.shape:
        raise Unlike(f"{what} has the shape {list(rebuilt.shape)}, the model computed {list(real.shape)}")
    scale = (real if scale_of is None else scale_of).abs().amax().clamp(min=torch.finfo(real.dtype).tiny)
    worst = float((rebuilt - real).abs().amax() / scale)
    if not worst <= allowed(real):
        raise Unlike(f"{what} differs from what the model computed by {worst:.1e} of its largest value")
    return worst
