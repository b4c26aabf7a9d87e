"""Calls that were taken for windows, but hold whole items: rows of their own, or several items in one row."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlib.hooks.calls import Call
from attnlib.hooks.origins import TokenSequence
from attnlib.hooks.placement import REPEATED, SEVERAL
from attnlib.record.placed import Piece, PlacedAttention

__all__ = ["find_whole_items"]


def find_whole_items(call: Call) -> None:
    """Place a call whose windows could not be placed, if each of them is an item or holds whole items.

    Parameters
    ----------
    call : a self-attention call; its source and its sequences are changed.
    """
    if call.unplaced == REPEATED:
        _take_rows_for_tokens(call)
    elif call.unplaced == SEVERAL:
        _take_items_apart(call)


def _take_rows_for_tokens(call: Call) -> None:
    """Take rows that were made from the same token of the input for tokens of their own.

    Each item must be one window, with tokens that no other window has: nothing overlaps then.
    """
    rows, sequence = _rows(call), call.query_sequence
    if rows is None or sequence is None or rows.shape[0] not in {sequence.batch, *call.first_axes}:
        return
    apart = sum(len(one.unique()) for one in rows)
    if apart != len(rows.unique()) or bool((rows < 0).any()):
        return
    batch, size = rows.shape
    parents = rows.to(torch.int32)
    own = TokenSequence(sequence.root, batch, size, up=sequence, parents=parents, modality=sequence.modality)
    call.unplaced = None
    call.query_sequence = call.key_sequence = own
    call.query_rows = call.key_rows = own.ids(rows.shape[0], 1, rows.shape[1])


def _take_items_apart(call: Call) -> None:
    """Put the items that a model packed into one row, under a mask that keeps them apart, at their places."""
    rows, sequence = _rows(call), call.query_sequence
    if rows is None or sequence is None or len(rows) != 1 or call.queries is not None:
        return
    row, batch, size = rows[0], sequence.batch, sequence.size
    if bool((row < 0).any()) or len(row.unique()) != len(row) or len((row // size).unique()) != batch:
        return
    items, within = row // size, row % size
    pieces = [
        Piece(call.source, torch.tensor([item]), places[None], places[None])
        for item in range(batch)
        for places in [torch.where(items == item, within, -1)]
    ]
    source = PlacedAttention(tuple(pieces), batch, size, size, "blocks")
    there = torch.zeros(batch * size, dtype=torch.bool)
    there[row] = True
    sums = source.weights([0], slice(None)).sum(-1).cpu()
    if not bool((((sums - 1).abs() < 1e-3) | ~there.view(batch, 1, size)).all()):
        return
    call.source, call.unplaced = source, None
    if not bool(there.all()):
        call.notes = (*call.notes, "smaller pictures leave places of the grid empty: their weights are 0")


def _rows(call: Call) -> Tensor | None:
    """Return the token numbers of the rows, [window, row], if columns and all heads have the same."""
    query, key, batch = call.query_rows, call.key_rows, call.source.shape[0]
    if query is None or key is None or query.dim() != 3 or call.query_sequence is not call.key_sequence:
        return None
    full = torch.broadcast_tensors(query, key)[0] if query.shape[-1] == key.shape[-1] else None
    if full is None or not bool((query == key).all()) or bool((full != full[:, :1]).any()):
        return None
    return full[:, 0].expand(batch, -1).to(torch.int64)
