r"""The propagation engine: transitions multiplied from the last layer to the first.

A method gives the *transition* of a layer: for a block of query rows, their weights over the keys.
The engine carries one start vector (or all) through the layers, block by block, so that one start
vector needs memory linear in the number of tokens:

.. math:: v_{l-1} = v_l\,T_l, \qquad v_L = \text{start vector}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.layout import TokenLayout
from attnlib.methods.windows import MERGED, WindowLayer, merge_spread, window_layers
from attnlib.record import LayerAttention

__all__ = [
    "Block",
    "LinearTransition",
    "Propagated",
    "Transition",
    "WholeLayer",
    "blocks_of",
    "class_rows",
    "fused_rows",
    "propagate",
    "propagate_whole",
]

BLOCK_ELEMENTS = 2**20


@dataclass(eq=False)
class Block:
    """Some rows of a transition: weights over the keys plus a part that stays where it is.

    Parameters
    ----------
    weights : row = query, column = key.
    stay : share of each row that stays on its own token (the identity part); None = none.
    notes : what a reader must know about these rows, in words.
    """

    weights: Float[Tensor, "batch row key"]
    stay: Float[Tensor, "batch row"] | None = None
    notes: tuple[str, ...] = ()


Transition = Callable[[LayerAttention, slice | list[int]], Block]
Streamed = Callable[[LayerAttention, Tensor], tuple[Tensor, float] | None]


@dataclass(eq=False)
class LinearTransition:
    """A transition that can also carry a few vectors through a layer without forming its rows.

    Parameters
    ----------
    rows : the transition.
    streamed : (layer, vectors) -> (the vectors times the layer, the share that stays), or None if this
        layer is not of the kind that can be streamed. Both ways give the same numbers.
    """

    rows: Transition
    streamed: Streamed

    def __call__(self, layer: LayerAttention, rows: slice | list[int]) -> Block:
        """Return some rows of a layer."""
        return self.rows(layer, rows)


@dataclass(eq=False)
class Propagated:
    """Result of a propagation.

    Parameters
    ----------
    scores : what arrived at each token of the first layer.
    identity : the part that stayed on its own token in every layer.
    notes : what the transitions said.
    layout : of the first layer's tokens, where it is not that of the last.
    """

    scores: Float[Tensor, "batch start key"]
    identity: Float[Tensor, "batch start key"] | None
    notes: tuple[str, ...] = ()
    layout: TokenLayout | None = None


def propagate(
    layers: Sequence[LayerAttention], start: Float[Tensor, "batch start query"], transition: Transition
) -> Propagated:
    """Carry start vectors from the last layer to the first.

    Parameters
    ----------
    layers : self-attention calls, first layer first.
    start : one row per start vector over the query rows of the last layer.
    transition : the rows of one layer.

    Raises
    ------
    InputError
        If a layer does not fit the next.
    """
    vector, identity = start, start
    notes: list[str] = []
    above: LayerAttention | None = None
    for layer in reversed(layers):
        if above is not None and layer.num_queries != vector.shape[-1]:
            spread = merge_spread(above, layer)
            vector, identity = spread(vector), spread(identity)
            notes.append(MERGED)
        if layer.num_queries != vector.shape[-1] or layer.num_queries != layer.num_keys:
            raise InputError(_no_fit(layer, above, vector.shape[-1]))
        above = layer
        vector, identity, said = _through(layer, vector, identity, transition)
        notes += said
    lowest = layers[0].key_layout if MERGED in notes else None
    return Propagated(vector, identity, tuple(dict.fromkeys(notes)), lowest)


def _no_fit(layer: LayerAttention, above: LayerAttention | None, carried: int) -> str:
    """Say which tokens joined or left between two layers, and what can be asked instead."""
    if layer.num_queries != layer.num_keys:
        return (
            f"{layer.name} goes from {layer.num_queries} to {layer.num_keys} tokens: only square layers can "
            "be multiplied; name others with layers="
        )
    given = above.name if above is not None else "the row it starts from"
    return (
        f"{given} has {carried} tokens, {layer.name} below it {layer.num_queries}: some join between the "
        "two, so the row cannot be carried on. Ask for rows of the layers below by query= ('mean', a patch), "
        "or name layers of one size by layers=, or see the row itself with 'raw'"
    )


def _through(
    layer: LayerAttention, vector: Tensor, identity: Tensor, transition: Transition
) -> tuple[Tensor, Tensor, list[str]]:
    """Multiply by one layer; rows that carry nothing are never computed."""
    if not isinstance(transition, WholeLayer):
        pieces = window_layers(layer)
        if pieces:
            return _through_windows(pieces, vector, identity, transition)
    streamed = getattr(transition, "streamed", None)
    if streamed is not None:
        found = streamed(layer, vector)
        if found is not None:
            moved, stay = found
            return moved + stay * vector, stay * identity, []
    arrived = vector.new_zeros(*vector.shape[:-1], layer.num_keys)
    kept = torch.zeros_like(identity)
    notes: list[str] = []
    for rows in blocks_of(layer, active_rows(vector)):
        block = transition(layer, rows)
        carried = vector[..., rows]
        arrived += carried.to(block.weights.dtype) @ block.weights
        if block.stay is not None:
            arrived[..., rows] += carried * block.stay[:, None]
            kept[..., rows] = identity[..., rows] * block.stay[:, None]
        notes += block.notes
    return arrived, kept, notes


def _through_windows(
    pieces: Sequence[WindowLayer],
    vector: Tensor,
    identity: Tensor,
    transition: Transition,
) -> tuple[Tensor, Tensor, list[str]]:
    """Multiply by one layer window by window: no matrix over all tokens is formed."""
    arrived, kept = torch.zeros_like(vector), torch.zeros_like(vector)
    notes: list[str] = []
    for piece in pieces:
        block = transition(piece.layer, slice(0, piece.layer.num_queries))
        carried = piece.gather(vector)
        piece.scatter(arrived, carried.to(block.weights.dtype) @ block.weights, keys=True)
        if block.stay is not None:
            piece.scatter(arrived, carried * block.stay[:, None])
            piece.scatter(kept, piece.gather(identity) * block.stay[:, None])
        notes += block.notes
    return arrived, kept, notes


def class_rows(calls: Sequence[LayerAttention], transition: Transition) -> Propagated:
    """Carry the row of a class token through calls in which only that token reads: itself and all patches.

    Parameters
    ----------
    calls : first one first; token 0 of the keys is the class token, the others stay as they are.
    transition : the rows of one call.
    """
    last = transition(calls[-1], [0])
    vector = torch.zeros_like(last.weights)
    vector[..., 0] = 1.0
    identity, notes = vector, list(last.notes)
    for call in reversed(calls):
        block = last if call is calls[-1] else transition(call, [0])
        own, stay = vector[..., :1], 0.0 if block.stay is None else block.stay[..., None]
        vector = torch.cat([own * stay, vector[..., 1:]], dim=-1) + own * block.weights
        identity = identity * stay
        notes += block.notes
    return Propagated(vector, identity, tuple(dict.fromkeys(notes)))


def propagate_whole(
    layers: Sequence[LayerAttention],
    start: Float[Tensor, "batch start query"],
    transition: Callable[[LayerAttention], Block],
) -> Propagated:
    """Carry start vectors through layers whose transition needs the whole matrix at once.

    Parameters
    ----------
    layers, start : as for :func:`propagate`.
    transition : layer -> Block with all its rows.
    """
    return propagate(layers, start, WholeLayer(transition))


class WholeLayer:
    """Serve blocks of rows from one whole layer, the last one asked for."""

    def __init__(self, transition: Callable[[LayerAttention], Block]) -> None:
        self.transition = transition
        self.layer: LayerAttention | None = None
        self.block: Block | None = None

    def __call__(self, layer: LayerAttention, rows: slice | list[int]) -> Block:
        """Return some rows of the layer that is held, computing it if it is another one."""
        if self.block is None or self.layer is not layer:
            self.block = None
            self.layer, self.block = layer, self.transition(layer)
        stay = None if self.block.stay is None else self.block.stay[:, rows]
        return Block(self.block.weights[:, rows], stay, self.block.notes)


def active_rows(vector: Float[Tensor, "batch start query"]) -> list[int] | None:
    """Return the rows that any start vector touches; None if that is (nearly) all of them."""
    touched = (vector != 0).flatten(0, 1).any(dim=0)
    rows = torch.nonzero(touched).flatten().tolist()
    return None if len(rows) == touched.numel() else rows


def blocks_of(layer: LayerAttention, rows: list[int] | None = None) -> Iterator[slice | list[int]]:
    """Cut the query rows of a layer into blocks whose weights stay small.

    Parameters
    ----------
    layer : the attention call.
    rows : only these rows; None = all.
    """
    size = max(1, BLOCK_ELEMENTS // max(1, layer.batch_size * layer.num_heads * layer.num_keys))
    total = layer.num_queries if rows is None else len(rows)
    for start in range(0, total, size):
        stop = min(start + size, total)
        yield slice(start, stop) if rows is None else rows[start:stop]


def fused_rows(
    layer: LayerAttention,
    rows: slice | list[int] | None,
    *,
    head_fusion: str = "mean",
    heads: int | Sequence[int] | None = None,
) -> Float[Tensor, "batch row key"]:
    """Return some rows of the attention with its heads fused.

    Parameters
    ----------
    layer : the attention call.
    rows : original query rows; None = all.
    head_fusion : "mean", "max" or "min".
    heads : original heads; None = all that were kept.
    """
    weights = layer.weights(heads=heads, queries=rows)
    if head_fusion == "mean":
        return weights.mean(dim=1)
    if head_fusion == "max":
        return weights.amax(dim=1)
    if head_fusion == "min":
        return weights.amin(dim=1)
    raise InputError(f"head_fusion must be mean, max or min, got {head_fusion!r}")
