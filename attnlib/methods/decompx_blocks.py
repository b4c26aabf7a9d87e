"""DecompX through attention blocks: the vectors of which the state of each token consists."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.methods.decomposition import block_of
from attnlib.methods.memory import demand
from attnlib.methods.parts_rules import EPS, shared
from attnlib.record import LayerAttention
from attnlib.record.internals import BlockInternals, LinearMap, NormMap, NotDecomposable

__all__ = ["check_size", "decomposed_states", "what_lacks"]

_WORKING_SET = 2**24


def decomposed_states(
    layers: tuple[LayerAttention, ...], rows: list[int], *, max_memory: int | None = None
) -> list[Float[Tensor, "row key width"]]:
    """Return, for each item, the vectors of which the states of some rows consist after the last layer.

    Parameters
    ----------
    layers : self-attention calls with internals, first layer first.
    rows : query rows of the last layer.
    max_memory : bytes that the vectors may take; None = what is free.

    Raises
    ------
    NeedsError
        If a block lacks a part.
    BudgetError
        If the vectors would take more than that.
    """
    blocks = [block_of(layer, "decompx") for layer in layers]
    check_size(layers[0], blocks[0], rows=None if blocks[1:] else len(rows), max_memory=max_memory)
    num_tokens = layers[0].num_keys
    found = []
    for item in range(layers[0].batch_size):
        state: Tensor | None = None
        for position, (layer, block) in enumerate(zip(layers, blocks, strict=True)):
            kept = rows if position == len(layers) - 1 else list(range(num_tokens))
            state = _through_block(layer, block, item, state, kept)
        assert state is not None
        found.append(state)
    return found


def what_lacks(layers: tuple[LayerAttention, ...]) -> str:
    """Say which block cannot be carried through as a whole, and why; empty if all can."""
    for layer in layers:
        block = layer.internals
        if isinstance(block, NotDecomposable):
            return block.reason
        if not isinstance(block, BlockInternals):
            continue  # what is missing is said where it is asked for
        if block.feed_forward is None or block.second_total is None or block.value is None:
            return f"{layer.name}: {block.problem or 'it has no feed-forward'}"
    return ""


def _through_block(
    layer: LayerAttention, block: BlockInternals, item: int, state: Tensor | None, rows: list[int]
) -> Float[Tensor, "row key width"]:
    """Carry the vectors of one item through one block."""
    values = _carried_values(layer, block, item, state)
    num_tokens, width = layer.num_keys, block.total.shape[-1]
    hidden = 1 if block.feed_forward is None else block.feed_forward.first.weight.shape[0]
    size = max(1, _WORKING_SET // (num_tokens * max(hidden, width)))
    out = block.total.new_empty(len(rows), num_tokens, width)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        vectors = _attended(layer, block, item, state, values, part)
        out[start : start + size] = _after_attention(block, item, part, vectors)
    return out


def check_size(
    layer: LayerAttention,
    block: BlockInternals,
    *,
    rows: int | None = None,
    items: int = 1,
    max_memory: int | None = None,
) -> None:
    """Refuse vectors for every pair of tokens (or some rows) that would take more memory than is allowed."""
    first, num_tokens = block.total, layer.num_keys
    needed = items * num_tokens * (rows or num_tokens) * first.shape[-1] * first.element_size() * 3
    demand(
        needed,
        f"decompx keeps a vector for every pair of {num_tokens} tokens",
        "use fewer tokens (a smaller picture), or globenc or alti",
        max_memory=max_memory,
        device=first.device,
    )


def _carried_values(layer: LayerAttention, block: BlockInternals, item: int, state: Tensor | None) -> Tensor:
    """Return the value vectors of each head: per token, or per token and source once they are decomposed."""
    if state is None:
        return layer.values()[item].to(block.total.dtype)  # head, key, dim
    read = state
    if block.value_norm is not None:
        read = _normed(state, block.value_norm, block.residual[item])
    assert block.value is not None
    made = read @ block.value.weight.T
    return made.unflatten(-1, (layer.num_heads, -1)).permute(2, 0, 1, 3)  # head, key, source, dim


def _attended(
    layer: LayerAttention,
    block: BlockInternals,
    item: int,
    state: Tensor | None,
    values: Tensor,
    rows: list[int],
) -> Float[Tensor, "row key width"]:
    """Return the vectors after attention, skip connection and the bias of the output map."""
    weights = layer.weights(queries=rows)[item].to(values.dtype)
    split = block.output.weight.unflatten(1, (layer.num_heads, -1))
    bias = values.new_zeros(len(rows), split.shape[0])
    if block.output.bias is not None:
        bias = bias + block.output.bias
    if state is None:
        sent = torch.einsum("hnv,dhv->nhd", values, split)
        vectors = (weights.permute(2, 1, 0) @ sent).transpose(0, 1)
        vectors[range(len(rows)), rows] += block.residual[item, rows]
    else:
        mixed = (weights @ values.flatten(2)).unflatten(2, values.shape[2:])  # head, row, source, dim
        vectors = mixed.permute(1, 2, 0, 3).flatten(2) @ block.output.weight.T + state[rows]
        if block.value is not None and block.value.bias is not None:
            per_head = torch.einsum("hv,dhv->hd", block.value.bias.unflatten(0, (layer.num_heads, -1)), split)
            bias = bias + weights.sum(dim=-1).T @ per_head
    return _shared_rows(vectors, bias)


def _after_attention(block: BlockInternals, item: int, rows: list[int], vectors: Tensor) -> Tensor:
    """Carry vectors through the norm, the feed-forward, its skip connection and the second norm."""
    assert block.feed_forward is not None
    assert block.second_total is not None
    if block.norm is not None:
        vectors = _normed(vectors, block.norm, block.total[item, rows])
    forward = block.feed_forward
    real = block.total[item, rows] if block.norm is None else block.norm(block.total[item, rows])
    read = vectors if forward.norm is None else _normed(vectors, forward.norm, real)
    inside = forward.first(real if forward.norm is None else forward.norm(real))
    slope = forward.activation(inside) / (inside + EPS)
    hidden = _mapped(read, forward.first) * slope[:, None]
    vectors = vectors + _mapped(hidden, forward.second)
    if block.second_norm is not None:
        vectors = _normed(vectors, block.second_norm, block.second_total[item, rows])
    return vectors


def _mapped(vectors: Tensor, linear: LinearMap) -> Tensor:
    made = vectors @ linear.weight.T
    return made if linear.bias is None else _shared_rows(made, linear.bias.expand(len(made), -1))


def _normed(vectors: Tensor, norm: NormMap, real: Tensor) -> Tensor:
    """Apply the linear part of a norm with the deviation of the real state; share out its shift."""
    made = norm.linear(vectors) / norm.deviation(real)[:, None, None]
    return made if norm.shift is None else _shared_rows(made, norm.shift.expand(len(made), -1))


def _shared_rows(vectors: Float[Tensor, "row key width"], bias: Float[Tensor, "row width"]) -> Tensor:
    return shared(vectors.transpose(0, 1), bias).transpose(0, 1)
