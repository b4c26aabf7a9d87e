r"""Relevance between two streams for the rows asked for, where only one of them reads the other.

With one reader, R of each stream is a plain product of its own layers, and R between the streams is
linear in it: rows are carried down, columns up, and no matrix over the tokens is formed.

.. math::
    v R_{sq} = \sum_c v\,P_c\,\bar R_{ss}^\top \bar A_c\,\bar R_{qq}, \qquad
    \bar R = D (R - I) + I, \qquad D^{-1} = \operatorname{diag}\big((R - I)\,\mathbf 1\big)

:math:`P_c` are the reader's own layers above the cross-attention call :math:`c`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.methods.streams import Pair
from attnlib.methods.transitions import ZERO_ROWS, inverse
from attnlib.record import LayerAttention

__all__ = ["Carried", "rows_between"]

Apply = Callable[[LayerAttention, Tensor], Tensor]


@dataclass(eq=False)
class Carried:
    """The two ways to multiply by a layer without forming it.

    Parameters
    ----------
    down : (layer, [batch, start, query]) -> [batch, start, key]: rows times the layer.
    up : (layer, [batch, key, start]) -> [batch, query, start]: the layer times columns.
    """

    down: Apply
    up: Apply


@dataclass(eq=False)
class _Own:
    """The relevance of a stream's tokens to one another, after some of its layers."""

    layers: Sequence[LayerAttention]
    carried: Carried
    share: Tensor
    empty: Tensor

    @classmethod
    def of(
        cls, layers: Sequence[LayerAttention], carried: Carried, like: Tensor, size: int, *, normalise: bool
    ) -> _Own:
        """Sum what each token received from others, and say what to divide by."""
        ones = like.new_ones(len(like), size)
        if not normalise:
            return cls(layers, carried, ones, torch.zeros(len(like), dtype=torch.bool, device=like.device))
        share, empty = inverse(_up(layers, carried, ones[..., None])[..., 0])
        return cls(layers, carried, share, empty.any(dim=1))

    def times(self, rows: Tensor) -> Tensor:
        """Return the rows times the matrix."""
        given, received = rows * self.share[:, None], torch.zeros_like(rows)
        for layer in reversed(self.layers):
            received = received + self.carried.down(layer, given + received)
        return rows + received

    def times_transposed(self, rows: Tensor) -> Tensor:
        """Return the rows times the transposed matrix."""
        received = _up(self.layers, self.carried, rows.transpose(1, 2)).transpose(1, 2)
        return rows + received * self.share[:, None]


def _up(layers: Sequence[LayerAttention], carried: Carried, columns: Tensor) -> Tensor:
    """Return (R - I) times columns, without the loss of digits of a difference."""
    received = torch.zeros_like(columns)
    for layer in layers:
        received = received + carried.up(layer, columns + received)
    return received


def rows_between(
    layers: Sequence[LayerAttention],
    pair: Pair,
    start: Float[Tensor, "batch start query"],
    carried: Carried,
    *,
    reader: str,
    keys: str,
    sizes: dict[str, int],
    normalise: bool = True,
    own_factors: bool = True,
    drop_on_empty_row: bool = False,
) -> tuple[Float[Tensor, "batch start key"], list[str]]:
    """Return the relevance of the key stream's tokens to the start rows, and what was noted.

    Parameters
    ----------
    layers, pair : as for ``relate``; the pair has one reader.
    start : over the tokens of ``reader``.
    carried : how to multiply by the gradient-weighted attention of a layer.
    reader, keys : streams of the rows and of the columns.
    sizes : tokens of each stream.
    normalise, own_factors, drop_on_empty_row : as for ``relate``.
    """
    if reader == keys:
        own = [layer for layer in layers if layer.stream == reader and layer.kind != "cross"]
        plain = _Own.of(own, carried, start, sizes[reader], normalise=False)
        return plain.times(start), []
    found = start.new_zeros(*start.shape[:2], sizes[keys])
    if reader != pair.readers[0]:  # the other stream reads nothing of the reader's
        return found, []
    notes: list[str] = []
    waiting: dict[int, Tensor] = {}
    known: dict[tuple[str, int], _Own] = {}

    def own_of(stream: str, position: int) -> tuple[int, _Own]:
        below = [one for one in layers[:position] if one.stream == stream and one.kind != "cross"]
        place = (stream, len(below))
        if place not in known:
            known[place] = _Own.of(below, carried, start, sizes[stream], normalise=normalise)
        return len(below), known[place]

    vector = start
    for position in reversed(range(len(layers))):
        layer = layers[position]
        if layer.kind == "cross":
            if not own_factors:
                found = found + carried.down(layer, vector)
                continue
            _, above = own_of(reader, position)
            depth, below = own_of(keys, position)
            sent = carried.down(layer, above.times_transposed(vector))
            empty = above.empty | below.empty
            if drop_on_empty_row:
                sent = torch.where(empty[:, None, None], 0.0, sent)
            if bool(empty.any()):
                notes.append(ZERO_ROWS)
            waiting[depth] = waiting.get(depth, 0) + sent
        elif layer.stream == reader:
            vector = vector + carried.down(layer, vector)
    for depth, sent in waiting.items():
        found = found + known[keys, depth].times(sent)
    return found, notes
