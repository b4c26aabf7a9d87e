"""Take the attention blocks of a forward pass apart, by following its tensors, and verify the parts.

No class names are looked at. For each captured attention call, the linear map that turns weights
times values into what the model computed is W_O; from there the tensors are followed to the sum with
the block's input, to the normalisation of that sum if there is one, and to the sum after the
feed-forward. Every part is put together again and compared with what the model computed; a block
that does not agree is refused by name when a method asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from attnlib.hooks.internals_flow import NORMS, SAME, Flow, Step, activation_of, linear_of
from attnlib.hooks.rerun import Tap
from attnlib.record import AttentionRecord, LayerAttention
from attnlib.record.internals import BlockInternals, FeedForward, LinearMap, NormMap, NotDecomposable

__all__ = ["Collected", "collecting"]

_PROBES = 7
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}


class _Unlike(Exception):
    """A block is built in a way that cannot be taken apart; the text says how."""


@contextmanager
def collecting(module: nn.Module) -> Iterator[Collected]:  # noqa: ARG001
    """Follow the tensors of the forward pass inside the block.

    Parameters
    ----------
    module : the model that runs inside; it is not touched.
    """
    flow = Flow()
    with flow:
        yield Collected(flow)


class Collected:
    """What a forward pass left for taking its blocks apart."""

    def __init__(self, flow: Flow) -> None:
        self._flow: Flow | None = flow
        self.taps: dict[tuple[str, int], Tap] = {}

    def attach(self, record: AttentionRecord) -> None:
        """Put into every layer of a record its internals, or the reason why there are none."""
        if self._flow is None:
            return
        maps = [step for step in self._flow.steps if step.value is not None and _is_map(step)]
        for layer in record.layers:
            try:
                position, output = _output_map(layer, maps)
                self._add_tap(layer, maps[position])
                layer.internals = _block(layer, output, maps[position], self._flow.steps)
                maps = maps[position + 1 :]
            except _Unlike as reason:
                layer.internals = NotDecomposable(f"{layer.name} cannot be taken apart: {reason}")
        self._flow = None

    def _add_tap(self, layer: LayerAttention, output: Step) -> None:
        """Note where the hidden states come from that the call's query, key and value are made of."""
        read = _read_by(output)
        if read is not None and read.sample is not None:
            self.taps[layer.stream, layer.index] = Tap(read.name, read.shape, read.sample)


def _read_by(output: Step) -> Step | None:
    """Return the one step whose result the linear maps in front of an attention call read."""
    if output.name == "multi_head_attention_forward":
        sources = {_origin(parent) for parent in output.parents}
        return sources.pop() if len(sources) == 1 else None
    seen: set[int] = set()
    sources = set()
    waiting = list(output.parents)
    while waiting:
        step = waiting.pop()
        if step.number in seen:
            continue
        seen.add(step.number)
        if _is_map(step):
            sources |= {_origin(parent) for parent in step.parents}
        else:
            waiting.extend(step.parents)
    return sources.pop() if len(sources) == 1 else None


def _block(layer: LayerAttention, output: LinearMap, made_by: Step, steps: list[Step]) -> BlockInternals:
    factor, shift, end = _to_sum(made_by)
    output = _folded(output, factor, shift)
    total, residual, into = _residual_sum(end, made_by)
    if residual.shape != total.shape or tuple(total.shape[:2]) != (layer.batch_size, layer.num_queries):
        raise _Unlike(
            f"its output {list(total.shape)} is not [batch, query, width]: windows or flattened tokens"
        )
    block = BlockInternals(output, residual, total)
    deviation = _compare(_sublayer(layer, block), total - residual, "W_O over weights x V")
    block = replace(block, norm=_only_norm(into), deviation=deviation)
    return _with_second(block, into, steps)


def _is_map(step: Step) -> bool:
    return linear_of(step) is not None


def _output_map(layer: LayerAttention, maps: list[Step]) -> tuple[int, LinearMap]:
    """Find the first linear map whose output is W_O (A V) on a few tokens."""
    if layer.heads is not None:
        raise _Unlike("only some of its heads were captured, and all are needed for the sum")
    batch, heads, queries, _ = layer.source.shape
    try:
        values = layer.values()
    except Exception as error:
        raise _Unlike(f"its value vectors are not known ({error})") from None
    width = heads * values.shape[-1]
    flat = torch.linspace(0, batch * queries - 1, _PROBES).round().long().unique()
    rows = sorted({int(i) % queries for i in flat})
    mixed = layer.weights(queries=rows) @ values.to(torch.promote_types(values.dtype, torch.float32))
    merged = mixed.transpose(1, 2).flatten(2)  # batch, row, head x dim
    alive = layer.weights(queries=rows).sum(dim=-1).amin(dim=1) > 0
    for position, step in enumerate(maps):
        weight, bias = linear_of(step) or (None, None)
        if weight is None or step.value is None or weight.shape[1] != width:
            continue
        if step.value.numel() != batch * queries * weight.shape[0]:
            continue
        expected = torch.nn.functional.linear(
            merged.to(weight.dtype), weight.detach(), None if bias is None else bias.detach()
        )
        for real in _as_batch(step, batch, queries):
            scale = real.abs().amax().clamp(min=torch.finfo(real.dtype).tiny)
            if bool((((real[:, rows] - expected)[alive]).abs() <= _allowed(real) * scale).all()):
                return position, LinearMap(weight.detach(), None if bias is None else bias.detach())
    raise _Unlike(
        f"no linear map after it reads its {heads} merged heads as they are (windows, a norm, a gate or "
        "another product stands between the attention and its output map)"
    )


def _as_batch(step: Step, batch: int, queries: int) -> Iterator[Tensor]:
    value = step.value
    assert value is not None
    width = value.shape[-1]
    if step.name == "multi_head_attention_forward" and value.shape[:2] == (queries, batch):
        yield value.transpose(0, 1)
    if value.dim() < 3 or value.shape[:2] == (batch, queries):
        yield value.reshape(batch, queries, width)


def _to_sum(step: Step) -> tuple[Tensor | None, Tensor | None, Step]:
    """Follow W_O's result through what changes nothing but its scale, up to the sum with the input."""
    factor: Tensor | None = None
    shift: Tensor | None = None
    while True:
        onward = [child for child in step.children if not _is_look(child)]
        if len(onward) != 1:
            found = "nothing" if not onward else f"{len(onward)} functions ({', '.join(map(str, onward))})"
            raise _Unlike(f"{found} read its output where one sum was expected")
        child = onward[0]
        if child.name in SAME:
            step = child
        elif child.name == "mul" and (by := _constant(child)) is not None:
            factor = by if factor is None else factor * by
            shift = None if shift is None else shift * by
            step = child
        elif child.name == "add" and len(child.parents) == 1 and (by := _parameter_term(child)) is not None:
            shift = by if shift is None else shift + by
            step = child
        elif child.terms:
            return factor, shift, child
        else:
            raise _Unlike(f"{child.name!r} stands between its output map and the sum with the block's input")


def _is_look(step: Step) -> bool:
    """Tell whether a step only looks at a tensor: its result is read by nobody."""
    return not step.children and step.name not in ("add", *NORMS)


def _constant(step: Step) -> Tensor | None:
    """Return what a multiplication multiplies by, if that is a number or one number a channel."""
    if len(step.parents) != 1:
        return None
    for value in step.args:
        if isinstance(value, Tensor):
            return value.detach().reshape(-1)
        if isinstance(value, int | float):
            return torch.tensor(float(value))
    return None


def _parameter_term(step: Step) -> Tensor | None:
    for value, source in step.terms:
        if source is None and value.numel() == value.shape[-1]:
            return value.reshape(-1)
    return None


def _folded(output: LinearMap, factor: Tensor | None, shift: Tensor | None) -> LinearMap:
    weight, bias = output.weight, output.bias
    if factor is not None:
        factor = factor.to(weight)
        weight = weight * factor[:, None] if factor.numel() > 1 else weight * factor
        bias = None if bias is None else bias * factor
    if shift is not None:
        bias = shift.to(weight) if bias is None else bias + shift
    return LinearMap(weight, bias)


def _residual_sum(end: Step, output: Step) -> tuple[Tensor, Tensor, Step]:
    """Return the sum, the summand that is the block's input, and the step of the sum."""
    assert end.value is not None
    candidates = [
        (value, source)
        for value, source in end.terms
        if source is not None and _origin(source) is not _origin(output) and not _comes_from(source, output)
    ]
    if len(candidates) != 1:
        raise _Unlike("its output is not added to the block's input")
    value, source = candidates[0]
    if not _comes_from(output, _origin(source)):
        raise _Unlike("its output is added to something that is not the block's input (parallel branches)")
    return end.value, value, end


def _origin(step: Step) -> Step:
    """Return the step that computed what this one only passes on."""
    while step.name in SAME and len(step.parents) == 1:
        step = step.parents[0]
    return step


def _comes_from(step: Step, source: Step) -> bool:
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


def _onward(step: Step) -> list[Step]:
    """Return the steps that read a result, looking through those that only pass it on."""
    found: list[Step] = []
    for child in step.children:
        if child.name in SAME:
            found += _onward(child)
        elif child.children or child.terms or child.name in NORMS:
            found.append(child)
    return found


def _only_norm(step: Step) -> NormMap | None:
    """Return the normalisation of a sum, if that is all that reads it."""
    readers = _onward(step)
    return _norm(readers[0]) if len(readers) == 1 else None


def _norm(step: Step) -> NormMap | None:
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


def _with_second(block: BlockInternals, into: Step, steps: list[Step]) -> BlockInternals:
    """Find the feed-forward: the next sum of the sub-layer's output and something that comes from it."""
    start = _origin(_onward(into)[0]) if block.is_post_norm else into
    for step in steps[start.number + 1 :]:
        if not step.terms:
            continue
        sources = [(value, None if one is None else _origin(one)) for value, one in step.terms]
        own = [i for i, (_, one) in enumerate(sources) if one is start]
        if len(own) != 1 or sources[1 - own[0]][1] is None:
            continue
        other = step.terms[1 - own[0]][1]
        if other is None or not _comes_from(other, start) or step.value is None:
            continue
        if step.value.shape != block.total.shape:
            continue
        return _second(block, step, step.terms[own[0]][0], other)
    return block


def _second(block: BlockInternals, step: Step, carried: Tensor, other: Step) -> BlockInternals:
    assert step.value is not None
    _compare(block.out(), carried, "the normalised sum" if block.is_post_norm else "the sum")
    second_norm = _only_norm(step) if block.is_post_norm else None
    block = replace(block, second_total=step.value, second_norm=second_norm)
    try:
        forward = _feed_forward(other, block)
        inner = block.out() if forward.norm is None else forward.norm(block.out())
        rebuilt = forward.second(forward.activation(forward.first(inner)))
        _compare(rebuilt, step.value - carried, "the feed-forward", step.value)
    except _Unlike as reason:
        return replace(block, feed_forward_problem=str(reason))
    return replace(block, feed_forward=forward)


def _feed_forward(step: Step, block: BlockInternals) -> FeedForward:
    """Read linear map, activation, linear map backwards from the sum."""
    factor: Tensor | None = None
    step = _origin(step)
    while step.name == "mul" and (by := _constant(step)) is not None:
        factor = by if factor is None else factor * by
        step = _origin(step.parents[0])
    second = linear_of(step) if _is_map(step) else None
    if second is None:
        raise _Unlike(f"its feed-forward ends with {step.name!r}, not with a linear map")
    activation = _origin(step.parents[0])
    if len(activation.parents) != 1 or activation.function is None or _is_map(activation):
        raise _Unlike(
            f"its feed-forward has {activation.name!r} where an element-wise activation was expected"
        )
    first_step = _origin(activation.parents[0])
    first = linear_of(first_step) if _is_map(first_step) else None
    if first is None:
        raise _Unlike(f"its feed-forward begins with {first_step.name!r}, not with a linear map")
    before = _origin(first_step.parents[0])
    norm = None if block.is_post_norm else _norm(before)
    return FeedForward(
        LinearMap(*_detached(first)),
        _folded(LinearMap(*_detached(second)), factor, None),
        activation_of(activation),
        norm,
    )


def _detached(pair: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    return pair[0].detach(), None if pair[1] is None else pair[1].detach()


def _sublayer(layer: LayerAttention, block: BlockInternals) -> Tensor:
    values = layer.values()
    parts = []
    size = max(1, 2**22 // max(1, layer.batch_size * layer.num_heads * layer.num_keys))
    for start in range(0, layer.num_queries, size):
        weights = layer.weights(queries=slice(start, start + size))
        parts.append((weights.to(values.dtype) @ values).transpose(1, 2).flatten(2))
    return block.output(torch.cat(parts, dim=1))


def _allowed(real: Tensor) -> float:
    return _TOLERANCE.get(real.dtype, 2e-4)


def _compare(rebuilt: Tensor, real: Tensor, what: str, scale_of: Tensor | None = None) -> float:
    """Return the largest difference relative to the real values.

    Raises
    ------
    _Unlike
        If it is larger than rounding explains.
    """
    scale = (real if scale_of is None else scale_of).abs().amax().clamp(min=torch.finfo(real.dtype).tiny)
    worst = float((rebuilt - real).abs().amax() / scale)
    if not worst <= _allowed(real):
        raise _Unlike(f"{what} differs from what the model computed by {worst:.1e} of its largest value")
    return worst
