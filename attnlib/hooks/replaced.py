"""Rows that one call computes and another one replaces, such as those of global tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attnlib.hooks.calls import Call
from attnlib.hooks.following import Following
from attnlib.hooks.origins import Origins
from attnlib.hooks.trail import Frame
from attnlib.record.placed import Piece

__all__ = ["note_replaced", "without_replaced"]


def note_replaced(
    calls: Sequence[Call], args: Sequence[Any], following: Following, origins: Origins, frame: Frame
) -> None:
    """See that rows of the output of earlier calls of a module were overwritten with those of its last call.

    Parameters
    ----------
    calls : of the forward pass so far.
    args : target, index and values of the assignment, which was just made.
    following : which tensor depends on which calls.
    origins : the tokens of the rows of both.
    frame : the module that runs.
    """
    target, index, value = args[:3]
    own = [one for one in calls if one.frame is frame]
    if len(own) < 2 or not isinstance(target, Tensor) or not isinstance(value, Tensor):
        return
    earlier, last = following.before_write(target), following.after(value)
    if earlier is None or last is None or not 0 < earlier < last:
        return
    held, given = origins.get(target), origins.get(value)
    if held is None or given is None or held.sequence is not given.sequence:
        return
    places = (
        tuple(one.cpu() if isinstance(one, Tensor) else one for one in index)
        if isinstance(index, tuple)
        else index
    )
    gone, come = held.ids.expand(target.shape)[places], given.ids.expand(value.shape)
    if gone.shape != come.shape or not bool((gone == come).all()):
        return
    for call in own:
        if call.number <= earlier and call.query_sequence is held.sequence:
            known = gone.unique() if call.replaced is None else torch.cat([call.replaced, gone.unique()])
            call.replaced = known.to(torch.int64)


def without_replaced(call: Call, piece: Piece) -> Piece:
    """Leave out the rows of a part of an attention that another part replaced.

    Parameters
    ----------
    call : the part.
    piece : its weights, and where they belong.
    """
    if call.replaced is None or call.query_sequence is None:
        return piece
    numbers = piece.query_places + piece.items[:, None] * call.query_sequence.size
    gone = torch.isin(numbers, call.replaced) & (piece.query_places >= 0)
    return Piece(piece.source, piece.items, torch.where(gone, -1, piece.query_places), piece.key_places)
