"""Attention inside patches, in turn with attention between them: two streams, not stages of one."""

from __future__ import annotations

from collections.abc import Sequence

from attnlib.hooks.calls import Call
from attnlib.hooks.origins import TokenSequence

__all__ = ["inner_apart"]


def inner_apart(calls: Sequence[Call], streams: Sequence[str]) -> list[str]:
    """Name the streams of calls anew where a model goes back and forth between tokens and their parts.

    A model with stages leaves its fine tokens for coarser ones and does not come back. One that comes back,
    and goes on to the same coarse tokens again, keeps both side by side (transformer in transformer):
    its fine tokens are the stream "... inner".

    Parameters
    ----------
    calls : of one forward pass, in order.
    streams : their names so far.
    """
    inner: set[int] = set()
    for stream in dict.fromkeys(streams):
        queries = [
            call.query_sequence
            for call, name in zip(calls, streams, strict=True)
            if name == stream and call.query_sequence is not None
        ]
        inner |= {id(one) for one in _returned_to(queries)}
    return [
        f"{name} inner" if id(call.query_sequence) in inner else name
        for call, name in zip(calls, streams, strict=True)
    ]


def _returned_to(queries: Sequence[TokenSequence]) -> list[TokenSequence]:
    """Return the sequences that are used before and between two uses of one that was made of them."""
    places: dict[int, list[int]] = {}
    for place, one in enumerate(queries):
        places.setdefault(id(one), []).append(place)
    found = []
    for fine in {id(one): one for one in queries}.values():
        mine = places[id(fine)]
        for coarse in {id(one): one for one in queries if one is not fine}.values():
            theirs = places[id(coarse)]
            between = mine[0] < theirs[0] and any(theirs[0] < place < theirs[-1] for place in mine)
            if between and coarse.size < fine.size and fine in coarse.ancestors:
                found.append(fine)
                break
    return found
