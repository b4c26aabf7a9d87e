"""Relevance between two streams (encoder-decoder, co-attention), by the rules of Chefer et al., ICCV 2021.

The state is one matrix per pair of streams, R[query stream][key stream]. The attention calls are
followed in the order in which the model made them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnlib.errors import InputError, LayoutError
from attnlib.methods.request import one_row
from attnlib.methods.transitions import ZERO_ROWS, inverse
from attnlib.record import LayerAttention

__all__ = ["Pair", "Relations", "normalised", "relate", "stream_sizes", "together"]


@dataclass(frozen=True)
class Pair:
    """The two streams of a record and which of them reads the other.

    Parameters
    ----------
    readers : streams that have cross-attention; two of them in co-attention.
    streams : both streams.
    """

    readers: tuple[str, ...]
    streams: tuple[str, str]

    @classmethod
    def of(cls, layers: Sequence[LayerAttention]) -> Pair:
        """Find the pair, or say why there is none."""
        streams = tuple(dict.fromkeys(layer.stream for layer in layers))
        readers = tuple(dict.fromkeys(layer.stream for layer in layers if layer.kind == "cross"))
        if len(streams) == 1 and readers:
            raise LayoutError(
                f"the {streams[0]} reads another stream, which this record does not hold: give the whole "
                "record, without select(stream=...), or leave the cross-attention out with "
                "record.select(kind='self')"
            )
        if len(streams) != 2 or not readers:
            raise LayoutError(
                f"this record holds the streams {', '.join(streams)}"
                + (" without cross-attention between them" if not readers else "")
                + ": select one with record.select(stream=...)"
            )
        return cls(readers, (streams[0], streams[1]))

    def other(self, stream: str) -> str:
        """Return the stream that ``stream`` is paired with."""
        return self.streams[1] if stream == self.streams[0] else self.streams[0]

    def reader(self, wanted: str | None) -> str:
        """Return the stream whose token is the query."""
        if wanted is None:
            return self.readers[0]
        if wanted not in self.streams:
            raise InputError(f"no stream {wanted!r} in this record; it has {', '.join(self.streams)}")
        return wanted


@dataclass(eq=False)
class Relations:
    """R of every pair of streams, and what was noted on the way."""

    matrices: dict[tuple[str, str], Tensor]
    notes: list[str] = field(default_factory=list)


def normalised(
    received: Float[Tensor, "batch query query"],
) -> tuple[Float[Tensor, "batch query query"], Bool[Tensor, " batch"]]:
    r"""Divide what a token received from others by its sum; rows without any stay 0 there.

    .. math:: \bar R = \operatorname{rownorm}(R - I) + I

    Parameters
    ----------
    received : :math:`R - I`, summed up as such: the difference itself would lose the digits of what is small.

    Returns
    -------
    The normalised matrices, and which items have a row without any.
    """
    scale, empty = inverse(received.sum(dim=-1, keepdim=True))
    return _with_identity(received * scale), empty.flatten(1).any(1)


def _with_identity(matrix: Float[Tensor, "batch query query"]) -> Float[Tensor, "batch query query"]:
    return matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def relate(
    layers: Sequence[LayerAttention],
    pair: Pair,
    transition: Callable[[LayerAttention], Tensor],
    *,
    normalise: bool = True,
    own_factors: bool = True,
    drop_on_empty_row: bool = False,
) -> Relations:
    r"""Follow the calls and return the relevance of every token of both streams to every other.

    .. math::
        R_{ss} \mathrel{+}= \bar A R_{ss}, \quad R_{sq} \mathrel{+}= \bar A R_{sq} \quad\text{(self)};\qquad
        R_{sq} \mathrel{+}= \bar R_{ss}^\top \bar A\, \bar R_{qq}, \quad
        R_{ss} \mathrel{+}= \bar A\, R_{qs} \quad\text{(cross)}

    Parameters
    ----------
    layers : all calls, in the order in which the model made them.
    pair : the streams.
    transition : layer -> its gradient-weighted attention, [batch, query, key].
    normalise : apply the paper's equations 8 and 9.
    own_factors : multiply cross-attention by the self relevance of both streams (equation 10).
    drop_on_empty_row : forget an item's cross-attention call if any row of a factor is 0/0, as the published
        encoder-decoder code does.
    """
    state = _start(layers, pair)  # within a stream: what was received, R - I
    result = Relations(state)
    position = 0
    while position < len(layers):
        layer = layers[position]
        if layer.kind != "cross":
            own, other = layer.stream, pair.other(layer.stream)
            weights = transition(layer)
            state[own, own] = state[own, own] + weights + weights @ state[own, own]
            state[own, other] = state[own, other] + weights @ state[own, other]
            position += 1
            continue
        calls = together(layers, position)
        before = dict(state)
        for cross in calls:
            own, other = cross.stream, pair.other(cross.stream)
            weights = transition(cross)
            added, fresh = weights, weights
            if own_factors:
                left, right = before[own, own], before[other, other]
                empty = torch.zeros(len(weights), dtype=torch.bool, device=weights.device)
                if normalise:
                    (left, above), (right, below) = normalised(left), normalised(right)
                    empty = above | below
                else:
                    left, right = _with_identity(left), _with_identity(right)
                added = left.transpose(-1, -2) @ weights @ right
                if drop_on_empty_row:
                    added = torch.where(empty[:, None, None], 0.0, added)
                if bool(empty.any()):
                    result.notes.append(ZERO_ROWS)
            state[own, other] = state[own, other] + added
            if len(pair.readers) == 2:
                state[own, own] = state[own, own] + fresh @ before[other, own]
        position += len(calls)
    for own in pair.streams:
        state[own, own] = _with_identity(state[own, own])
    return result


def _start(layers: Sequence[LayerAttention], pair: Pair) -> dict[tuple[str, str], Tensor]:
    """Nothing has been received by any token of any stream."""
    sizes = stream_sizes(layers, pair)
    first = layers[0].weights(**one_row(layers[0]))
    batch = layers[0].batch_size
    return {
        (own, keys): first.new_zeros(batch, sizes[own], sizes[keys])
        for own in pair.streams
        for keys in pair.streams
    }


def stream_sizes(layers: Sequence[LayerAttention], pair: Pair) -> dict[str, int]:
    """Return the number of tokens of each stream.

    Raises
    ------
    InputError
        If a cross-attention call reads another number of keys than the other stream has.
    """
    sizes: dict[str, int] = {}
    for layer in layers:
        sizes.setdefault(layer.stream, layer.num_queries)
        if layer.kind == "cross":
            sizes.setdefault(pair.other(layer.stream), layer.num_keys)
            if layer.num_keys != sizes[pair.other(layer.stream)]:
                raise InputError(
                    f"{layer.name} reads {layer.num_keys} keys, but the stream {pair.other(layer.stream)} "
                    f"has {sizes[pair.other(layer.stream)]} tokens, and which of them are read is not known: "
                    "take one stream with record.select(stream=..., kind='self'), or look at the "
                    "cross-attention itself with 'raw'"
                )
    return sizes


def together(layers: Sequence[LayerAttention], position: int) -> list[LayerAttention]:
    """Return the cross-attention calls that read the same states: neighbours, one per stream."""
    found = [layers[position]]
    for layer in layers[position + 1 :]:
        if layer.kind != "cross" or layer.stream in {one.stream for one in found}:
            break
        found.append(layer)
    return found
