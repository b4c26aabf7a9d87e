"""Attention matrices of several streams: encoder and decoder, text and image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from attnlib.errors import InputError
from attnlib.layout import TokenLayout
from attnlib.record.layer import LayerAttention
from attnlib.record.sources import GivenAttention

__all__ = ["GivenCall", "layers_of_streams"]


@dataclass(frozen=True, eq=False)
class GivenCall:
    """One attention call whose matrix exists already.

    Parameters
    ----------
    stream : to which the query rows belong, such as "decoder".
    weights : [batch, head, query, key].
    gradients : d score / d weights, the same shape.
    key_stream : to which the keys belong, for cross-attention; None = the own stream.
    """

    stream: str
    weights: Tensor
    gradients: Tensor | None = None
    key_stream: str | None = None


def layers_of_streams(
    calls: Sequence[GivenCall], layouts: Mapping[str, TokenLayout]
) -> tuple[tuple[LayerAttention, ...], dict[str, TokenLayout]]:
    """Turn given calls into layers, and complete the layouts of their streams."""
    if not calls:
        raise InputError("from_streams got no call: give one GivenCall per attention call")
    sizes: dict[str, int] = {name: layout.num_tokens for name, layout in layouts.items()}
    for number, call in enumerate(calls):
        keys = call.key_stream or call.stream
        if call.weights.dim() != 4 or (
            call.gradients is not None and call.gradients.shape != call.weights.shape
        ):
            raise InputError(
                f"call {number} of {call.stream}: weights and gradients must be [batch, head, query, key]"
            )
        for stream, size in ((call.stream, call.weights.shape[2]), (keys, call.weights.shape[3])):
            if sizes.setdefault(stream, size) != size:
                raise InputError(
                    f"call {number}: the stream {stream!r} has {sizes[stream]} tokens elsewhere, {size} here"
                )
    known = {
        name: layouts.get(name) or TokenLayout(None, tokens=[f"token {i}" for i in range(size)])
        for name, size in sizes.items()
    }
    counts: dict[str, int] = {}
    layers = []
    for call in calls:
        index = counts.setdefault(call.stream, 0)
        counts[call.stream] += 1
        keys = call.key_stream or call.stream
        layers.append(
            LayerAttention(
                f"{call.stream} {index}",
                index,
                "self" if keys == call.stream else "cross",
                GivenAttention(call.weights, call.gradients),
                call.stream,
                known[call.stream],
                known[keys],
                key_stream=keys,
            )
        )
    return tuple(layers), known
