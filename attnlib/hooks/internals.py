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

from attnlib.hooks.internals_flow import SAME, Flow, Step, linear_of
from attnlib.hooks.internals_parts import maps_before, with_feed_forward, with_value
from attnlib.hooks.internals_walk import (
    Unlike,
    allowed,
    comes_from,
    compare,
    constant_of,
    folded,
    is_look,
    is_map,
    only_norm,
    onward,
    origin,
    parameter_term,
)
from attnlib.hooks.rerun import Tap
from attnlib.record import AttentionRecord, LayerAttention
from attnlib.record.internals import BlockInternals, LinearMap, NotDecomposable

__all__ = ["Collected", "collecting"]

_PROBES = 7


@contextmanager
def collecting(module: nn.Module, *, max_memory: int | None = None) -> Iterator[Collected]:
    """Follow the tensors of the forward pass inside the block.

    Parameters
    ----------
    module : the model that runs inside; it is not touched.
    max_memory : bytes that the tensors kept for this may take, besides those of the record.
    """
    num_maps = sum(isinstance(one, nn.Linear) for one in module.modules())
    flow = Flow(max_memory=max_memory, num_maps=num_maps)
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
        maps = [step for step in self._flow.steps if step.value is not None and is_map(step)]
        for layer in record.layers:
            try:
                position, output = _output_map(layer, maps)
                self._add_tap(layer, maps[position])
                layer.internals = _block(layer, output, maps[position], self._flow.steps)
                maps = maps[position + 1 :]
            except Unlike as reason:
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
        sources = {origin(parent) for parent in output.parents}
        return sources.pop() if len(sources) == 1 else None
    sources = set()
    for step in maps_before(output):
        read = step.parents[:1] if step.name == "linear" else step.parents  # a bias may be computed, too
        sources |= {origin(parent) for parent in read}
    return sources.pop() if len(sources) == 1 else None


def _block(layer: LayerAttention, output: LinearMap, made_by: Step, steps: list[Step]) -> BlockInternals:
    factor, shift, end = _to_sum(made_by)
    output = folded(output, factor, shift)
    total, residual, into = _residual_sum(end, made_by)
    if residual.shape != total.shape or tuple(total.shape[:2]) != (layer.batch_size, layer.num_queries):
        raise Unlike(
            f"its output {list(total.shape)} is not [batch, query, width]: windows or flattened tokens"
        )
    block = BlockInternals(output, residual, total)
    deviation = compare(_sublayer(layer, block), total - residual, "W_O over weights x V")
    block = replace(block, norm=only_norm(into), deviation=deviation)
    block = _with_second(block, into, steps)
    return with_value(block, layer, made_by) if layer.kind == "self" else block


def _output_map(layer: LayerAttention, maps: list[Step]) -> tuple[int, LinearMap]:
    """Find the first linear map whose output is W_O (A V) on a few tokens."""
    if layer.heads is not None:
        raise Unlike("only some of its heads were captured, and all are needed for the sum")
    batch, heads, queries, _ = layer.source.shape
    try:
        values = layer.values()
    except Exception as error:
        raise Unlike(f"its value vectors are not known ({error})") from None
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
            if bool((((real[:, rows] - expected)[alive]).abs() <= allowed(real) * scale).all()):
                return position, LinearMap(weight.detach(), None if bias is None else bias.detach())
    raise Unlike(
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
        readers = [child for child in step.children if not is_look(child)]
        if len(readers) != 1:
            found = "nothing" if not readers else f"{len(readers)} functions ({', '.join(map(str, readers))})"
            raise Unlike(f"{found} read its output where one sum was expected")
        child = readers[0]
        if child.name in SAME:
            step = child
        elif child.name == "mul" and (by := constant_of(child)) is not None:
            factor = by if factor is None else factor * by
            shift = None if shift is None else shift * by
            step = child
        elif child.name == "add" and len(child.parents) == 1 and (by := parameter_term(child)) is not None:
            shift = by if shift is None else shift + by
            step = child
        elif child.terms:
            return factor, shift, child
        else:
            raise Unlike(f"{child.name!r} stands between its output map and the sum with the block's input")


def _residual_sum(end: Step, output: Step) -> tuple[Tensor, Tensor, Step]:
    """Return the sum, the summand that is the block's input, and the step of the sum."""
    assert end.value is not None
    candidates = [
        (value, source)
        for value, source in end.terms
        if source is not None and origin(source) is not origin(output) and not comes_from(source, output)
    ]
    if len(candidates) != 1:
        raise Unlike("its output is not added to the block's input")
    value, source = candidates[0]
    if not comes_from(output, origin(source)):
        raise Unlike("its output is added to something that is not the block's input (parallel branches)")
    return end.value, value, end


def _with_second(block: BlockInternals, into: Step, steps: list[Step]) -> BlockInternals:
    """Find the feed-forward: the next sum of the sub-layer's output and something that comes from it."""
    start = origin(onward(into)[0]) if block.is_post_norm else into
    for step in steps[start.number + 1 :]:
        if not step.terms:
            continue
        sources = [(value, None if one is None else origin(one)) for value, one in step.terms]
        own = [i for i, (_, one) in enumerate(sources) if one is start]
        if len(own) != 1 or sources[1 - own[0]][1] is None:
            continue
        other = step.terms[1 - own[0]][1]
        if other is None or not comes_from(other, start) or step.value is None:
            continue
        if step.value.shape != block.total.shape:
            continue
        return _second(block, step, step.terms[own[0]][0], other)
    return block


def _second(block: BlockInternals, step: Step, carried: Tensor, other: Step) -> BlockInternals:
    assert step.value is not None
    compare(block.out(), carried, "the normalised sum" if block.is_post_norm else "the sum")
    second_norm = only_norm(step) if block.is_post_norm else None
    block = replace(block, second_total=step.value, second_norm=second_norm)
    return with_feed_forward(block, step, carried, other)


def _sublayer(layer: LayerAttention, block: BlockInternals) -> Tensor:
    values = layer.values()
    parts = []
    size = max(1, 2**22 // max(1, layer.batch_size * layer.num_heads * layer.num_keys))
    for start in range(0, layer.num_queries, size):
        weights = layer.weights(queries=slice(start, start + size))
        parts.append((weights.to(values.dtype) @ values).transpose(1, 2).flatten(2))
    return block.output(torch.cat(parts, dim=1))
