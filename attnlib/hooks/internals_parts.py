"""The parts of a block beside its attention: feed-forward and value map."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from attnlib.hooks.internals_flow import Step, activation_of, linear_of
from attnlib.hooks.internals_walk import (
    Unlike,
    compare,
    constant_of,
    detached,
    folded,
    is_map,
    norm_of,
    origin,
)
from attnlib.record import LayerAttention
from attnlib.record.internals import BlockInternals, FeedForward, LinearMap

__all__ = ["maps_before", "with_feed_forward", "with_value"]


def with_feed_forward(block: BlockInternals, step: Step, carried: Tensor, other: Step) -> BlockInternals:
    """Add the feed-forward of a block, or the reason why it has none that can be taken apart.

    Parameters
    ----------
    block : with its second sum.
    step : of the second sum.
    carried : the summand that skips the feed-forward.
    other : the step that computed the feed-forward's output.
    """
    assert step.value is not None
    try:
        forward = _feed_forward(other, block)
        inner = block.out() if forward.norm is None else forward.norm(block.out())
        rebuilt = forward.second(forward.activation(forward.first(inner)))
        compare(rebuilt, step.value - carried, "the feed-forward", step.value)
    except Unlike as reason:
        return replace(block, problem=str(reason))
    return replace(block, feed_forward=forward)


def _feed_forward(step: Step, block: BlockInternals) -> FeedForward:
    """Read linear map, activation, linear map backwards from the sum."""
    factor: Tensor | None = None
    step = origin(step)
    while step.name == "mul" and (by := constant_of(step)) is not None:
        factor = by if factor is None else factor * by
        step = origin(step.parents[0])
    second = linear_of(step) if is_map(step) else None
    if second is None:
        raise Unlike(f"its feed-forward ends with {step.name!r}, not with a linear map")
    activation = origin(step.parents[0])
    if len(activation.parents) != 1 or activation.function is None or is_map(activation):
        raise Unlike(
            f"its feed-forward has {activation.name!r} where an element-wise activation was expected"
        )
    first_step = origin(activation.parents[0])
    first = linear_of(first_step) if is_map(first_step) else None
    if first is None:
        raise Unlike(f"its feed-forward begins with {first_step.name!r}, not with a linear map")
    before = origin(first_step.parents[0])
    norm = None if block.is_post_norm else norm_of(before)
    return FeedForward(
        LinearMap(*detached(first)),
        folded(LinearMap(*detached(second)), factor, None),
        activation_of(activation),
        norm,
    )


def with_value(block: BlockInternals, layer: LayerAttention, output: Step) -> BlockInternals:
    """Add the map that makes the value vectors, or the reason why it was not found.

    Parameters
    ----------
    block : the block so far.
    layer : its attention call.
    output : the step of its output map.
    """
    values = layer.values()
    merged = values.transpose(1, 2).flatten(2)
    for step in maps_before(output):
        weight, bias = linear_of(step) or (None, None)
        if weight is None or step.value is None or step.value.numel() % merged.shape[-1]:
            continue
        made = step.value.reshape(*merged.shape[:2], -1) if _same_rows(step.value, merged) else None
        width = merged.shape[-1]
        for start in range(0, 0 if made is None else made.shape[-1], width):
            part = slice(start, start + width)
            if made is None or made[..., part].shape != merged.shape:
                continue
            try:
                compare(made[..., part], merged, "the value map")
            except Unlike:
                continue
            pair = detached((weight[part], None if bias is None else bias[part]))
            return _with_value_norm(block, LinearMap(*pair), origin(step.parents[0]), merged)
    return replace(block, problem=block.problem or "no linear map computes its value vectors as they are")


def _with_value_norm(block: BlockInternals, value: LinearMap, before: Step, merged: Tensor) -> BlockInternals:
    norm = None if block.is_post_norm else norm_of(before)
    try:
        read = block.residual if norm is None else norm(block.residual)
        compare(value(read), merged, "the value map after its norm")
    except Unlike as reason:
        return replace(block, problem=block.problem or str(reason))
    return replace(block, value=value, value_norm=norm)


def maps_before(output: Step) -> list[Step]:
    """Return the nearest linear maps that a step depends on."""
    found: dict[int, Step] = {}
    seen: set[int] = set()
    waiting = list(output.parents)
    while waiting:
        step = waiting.pop()
        if step.number in seen:
            continue
        seen.add(step.number)
        if is_map(step):
            found[step.number] = step
        else:
            waiting.extend(step.parents)
    return [found[number] for number in sorted(found)]


def _same_rows(made: Tensor, merged: Tensor) -> bool:
    return made.numel() // made.shape[-1] == merged.shape[0] * merged.shape[1]
