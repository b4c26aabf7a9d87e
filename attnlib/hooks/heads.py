"""Heads that are modules of their own, and calls that do not read one another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from attnlib.errors import InputError
from attnlib.hooks.beside import BESIDE
from attnlib.hooks.calls import Call
from attnlib.hooks.trail import Frame
from attnlib.record.heads import HeadsAttention
from attnlib.record.placed import Piece
from attnlib.record.released import ReleasedAttention

__all__ = ["Heads", "as_heads", "heads_of_one", "heads_together", "join_heads", "stands_apart"]


class Heads(tuple[Call, ...]):
    """Calls that are the heads of one attention."""

    __slots__ = ()


def as_heads(groups: Sequence[Sequence[Call]]) -> list[Sequence[Call]]:
    """Put neighbouring calls together that are heads of one attention, computed one by one."""
    found: list[Sequence[Call]] = []
    for group in groups:
        last: Sequence[Call] = found[-1] if found else Heads()
        alone = len(group) == 1 and (isinstance(last, Heads) or len(last) == 1)
        if found and alone and heads_of_one(last[-1], group[0]):
            found[-1] = Heads((*last, group[0]))
        else:
            found.append(group)
    return found


def heads_of_one(left: Call, right: Call) -> bool:
    """Tell whether two calls read the same tokens, not each other, and are told apart as heads are."""
    if left.shape != right.shape or not left.follows_like(right):
        return False
    if not _is_whole(left) or not _is_whole(right):
        return False
    if left.query_sequence is not right.query_sequence or left.key_sequence is not right.key_sequence:
        return False
    if not _alike(left.query_rows, right.query_rows) or not _alike(left.key_rows, right.key_rows):
        return False  # the same place of another item
    if left.frame is right.frame:
        return _slices_of_one(left, right)
    return type(left.frame.module) is type(right.frame.module) and _common(left.name, right.name) is not None


def _alike(left: Tensor | None, right: Tensor | None) -> bool:
    return left is right or (left is not None and right is not None and torch.equal(left, right))


def _is_whole(call: Call) -> bool:
    """Tell whether a call holds all rows and columns of its tokens."""
    query, key = call.query_sequence, call.key_sequence
    if not call.complete or call.unplaced is not None or BESIDE in call.notes or query is None or key is None:
        return False
    if call.shape[2:] != (query.size, key.size):
        return False
    return call.placement is None or call.placement.is_whole(key.batch, query.size, key.size)


def _slices_of_one(left: Call, right: Call) -> bool:
    """Tell whether the values of two calls are different slices of one projection."""
    first, second = left.value_place, right.value_place
    return first is not None and second is not None and first[0] == second[0] and first != second


def _common(left: str, right: str) -> str | None:
    """Return the path above the one place where two paths differ by a number; None if they differ more."""
    mine, other = left.split("."), right.split(".")
    if len(mine) != len(other):
        return None
    places = [at for at, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b]
    if len(places) != 1 or _unnumbered(mine[places[0]]) != _unnumbered(other[places[0]]):
        return None
    return ".".join(mine[: places[0]])


def _unnumbered(word: str) -> str:
    return "".join(letter for letter in word if not letter.isdigit())


def join_heads(model: nn.Module, group: Heads) -> Call:
    """Return one call for all heads.

    Parameters
    ----------
    model : in which the module above them is looked up.
    group : the calls.

    Raises
    ------
    InputError
        If heads were chosen at the capture: each call has its own.
    """
    first = group[0]
    name = first.name if first.frame is group[-1].frame else _common(first.name, group[-1].name) or ""
    if first.heads is not None:
        raise InputError(
            f"{name or 'the model'} computes each head by itself, so heads= cannot be chosen at the capture: "
            "capture all, then layer.weights(heads=...)"
        )
    frame = Frame(name, model.get_submodule(name), first.frame.args, first.frame.kwargs, first.frame.named)
    batch, _, queries, keys = first.shape
    shape = (batch, sum(call.shape[1] for call in group), queries, keys)
    gone = any(isinstance(call.source, ReleasedAttention) for call in group)
    if gone:
        for call in group:
            call.release()
    source = ReleasedAttention(name, shape) if gone else HeadsAttention(tuple(c.source for c in group))
    return Call(
        frame,
        first.root,
        source,
        first.forward,
        first.query_sequence,
        first.key_sequence,
        first.query_rows,
        first.key_rows,
        queries=first.queries,
        total_queries=first.total_queries,
        notes=tuple(dict.fromkeys(note for call in group for note in call.notes)),
        shape=shape,
        gradient_bytes=sum(call.gradient_bytes for call in group),
        parts=() if gone else tuple(group),
        number=group[-1].number,
        follows=first.follows,
    )


def heads_together(group: Sequence[Call], pieces: Sequence[Piece]) -> list[Piece]:
    """Put parts of one attention that stand at the same places together as its heads, in call order.

    Parameters
    ----------
    group : the calls.
    pieces : what they hold, and where it belongs.
    """
    if any(piece.source.shape[1] > 1 for piece in pieces):
        return list(pieces)
    at: dict[tuple[bytes, ...], list[int]] = {}
    for place, piece in enumerate(pieces):
        where = (piece.items, piece.query_places, piece.key_places)
        at.setdefault(tuple(one.numpy().tobytes() for one in where), []).append(place)
    counts = {len(places) for places in at.values()}
    if counts in ({1}, set()) or len(counts) > 1:
        return list(pieces)
    for places in at.values():
        calls = [group[place] for place in places]
        if not all(a.follows_like(b) and _slices_of_one(a, b) for a, b in pairwise(calls)):
            return list(pieces)
    return [
        Piece(
            HeadsAttention(tuple(pieces[place].source for place in places)),
            pieces[places[0]].items,
            pieces[places[0]].query_places,
            pieces[places[0]].key_places,
        )
        for places in at.values()
    ]


def stands_apart(before: Call | None, call: Call) -> str | None:
    """Say it where a call does not read what the one before it in its stream computed.

    Parameters
    ----------
    before : the self-attention call before it in the same stream and forward pass.
    call : a self-attention call.
    """
    if before is None or BESIDE in call.notes or call.follows is None or call.follows >= before.number:
        return None
    if before.name == call.name:
        return "makes several attention calls that do not read one another"
    return f"does not read what {before.name or 'the call before it'} computed: the two stand side by side"
