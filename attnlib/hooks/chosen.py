"""Queries of a decoder that were chosen from, or made of, tokens that are not theirs."""

from __future__ import annotations

import torch

from attnlib.hooks.calls import Call
from attnlib.hooks.origins import TokenSequence
from attnlib.hooks.placement import REPEATED

__all__ = ["count_chosen_queries", "in_decoder"]


def in_decoder(call: Call) -> bool:
    """Tell whether a call is made in a part that is named a decoder."""
    return not {"decoder", "mask_decoder"}.isdisjoint(call.name.lower().split("."))


def count_chosen_queries(call: Call) -> None:
    """Take a decoder's queries for tokens of their own, also where each was made from one token of an image.

    A detector chooses a few hundred of thousands of places to start its queries from, or starts all of them
    from one token: their attention is between queries, not between these places.
    """
    query, key, placement = call.query_sequence, call.key_sequence, call.placement
    if query is None or call.source.shape[2] < 2:
        return
    batch, _, count, num_keys = call.source.shape
    if placement is not None:
        chosen = placement.windows == query.batch and placement.query_places.shape[1] < query.size
        if not chosen or not bool((placement.items == torch.arange(placement.windows)).all()):
            return
        call.placement = None
    elif call.unplaced != REPEATED or batch not in call.first_axes:
        return
    call.unplaced = None
    call.query_sequence = TokenSequence("", batch, count)
    if key is query:
        call.key_sequence = call.query_sequence
    elif key is not None and key.size != num_keys:
        call.key_sequence = None
