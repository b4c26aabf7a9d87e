"""From the calls of a forward pass to the layers of a record: pieces joined, kind and stream found."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from attnlib.errors import CaptureError
from attnlib.hooks.beside import BESIDE, beside_each_other
from attnlib.hooks.calls import Call
from attnlib.hooks.chosen import count_chosen_queries, in_decoder
from attnlib.hooks.heads import (
    Heads,
    as_heads,
    heads_of_one,
    heads_together,
    join_heads,
    stands_apart,
)
from attnlib.hooks.inner import inner_apart
from attnlib.hooks.joint import JointTokens, hidden_by_mask, joint_tokens
from attnlib.hooks.kinds import kind_of, pool_sequences, readers_streams
from attnlib.hooks.placement import Placement
from attnlib.hooks.replaced import without_replaced
from attnlib.hooks.stream_names import StreamNames
from attnlib.hooks.whole_items import find_whole_items
from attnlib.record import LayerAttention, ProjectedAttention
from attnlib.record.placed import Piece, PlacedAttention
from attnlib.record.released import ReleasedAttention

__all__ = ["Settler"]


class Settler:
    """Name, sort and join calls; keeps count of the layers of each stream over several forward passes."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names = StreamNames(model)
        self._counts: dict[str, int] = {}
        self._passed: set[tuple[str, str]] = set()

    def settle(self, calls: Sequence[Call], *, step: int | None = None) -> list[tuple[Call, LayerAttention]]:
        """Turn the calls of one forward pass into layers, in call order."""
        merged = [self._merged(group) for group in _grouped(calls)]
        has_decoder = {in_decoder(call) for call in merged}
        pooled = pool_sequences(merged)
        if step:
            self._counts = {}
        layers = []
        before: dict[str, Call] = {}
        named = [self._names.of(call, mixed=len(has_decoder) == 2) for call in merged]
        streams = inner_apart(merged, readers_streams(merged, named))
        for call, stream in zip(merged, streams, strict=True):
            index = self._counts.get(stream, 0)
            self._counts[stream] = index + 1
            kind = kind_of(call, pooled)
            if kind == "self":
                known = before.get(stream)
                call.apart = stands_apart(known, call)
                if known is None and not step and (stream, call.root.name) in self._passed:
                    call.apart = "belongs to another forward pass than the calls before it"
                before[stream] = call
            if stream == "decoder":
                count_chosen_queries(call)
            elif kind == "self":
                find_whole_items(call)
            source = _placed(call)
            layers.append(
                (
                    call,
                    LayerAttention(
                        call.name,
                        index,
                        kind,
                        source,
                        stream,
                        heads=call.heads,
                        queries=call.queries,
                        total_heads=call.total_heads,
                        total_queries=call.total_queries,
                        step=step,
                        notes=_notes(call, source),
                        unplaced=_unplaced(call),
                    ),
                )
            )
        self._passed |= {(stream, call.root.name) for stream, call in before.items()}
        return layers

    def _merged(self, group: Sequence[Call]) -> Call:
        if isinstance(group, Heads):
            return join_heads(self._model, group)
        return _joined(group) if len(group) > 1 else group[0]

    def preview(
        self, calls: Sequence[Call], *, step: int | None
    ) -> list[tuple[Sequence[Call], str, int, str]]:
        """Say which layers these calls make so far: the calls of each, its stream, index and kind."""
        groups = _grouped(calls)
        firsts = [group[0] for group in groups]
        mixed = len({in_decoder(call) for call in firsts}) == 2
        pooled = pool_sequences(firsts)
        counts = {} if step else dict(self._counts)
        named = []
        streams = inner_apart(
            firsts, readers_streams(firsts, [self._names.of(call, mixed=mixed) for call in firsts])
        )
        for group, stream in zip(groups, streams, strict=True):
            index = counts.get(stream, 0)
            counts[stream] = index + 1
            named.append((group, stream, index, kind_of(group[0], pooled)))
        return named


def _grouped(calls: Sequence[Call]) -> list[Sequence[Call]]:
    """Group the calls of one module that each hold a part of the keys or queries of the same tokens."""
    by_frame: dict[int, list[Call]] = {}
    for call in calls:
        by_frame.setdefault(id(call.frame), []).append(call)
    result: list[Sequence[Call]] = []
    for group in by_frame.values():
        if len(group) > 1 and all(heads_of_one(a, b) for a, b in pairwise(group)):
            result.extend([call] for call in group)
            continue
        if len(group) > 1 and beside_each_other(group):
            for call in group:
                call.notes = tuple(dict.fromkeys((*call.notes, BESIDE)))
            result.extend([call] for call in group)
            continue
        partial = len(group) > 1 and any(not c.complete or c.placement is not None for c in group)
        if partial or _share_out(group):
            result.append(group)
        else:
            result.extend([call] for call in group)
    order = {id(call): place for place, call in enumerate(calls)}
    return as_heads(sorted(result, key=lambda group: order[id(group[0])]))


def _share_out(group: Sequence[Call]) -> bool:
    """Tell whether the calls share out the tokens of one sequence, as for pictures packed in a row."""
    first = group[0].query_sequence
    if len(group) < 2 or first is None or any(c.query_sequence is not first for c in group):
        return False
    known = all(c.query_rows is not None and c.key_rows is not None for c in group)
    if not known or any(c.shape[0] not in (1, first.batch) for c in group):
        return False
    together = torch.cat([_rows_of_items(call) for call in group])
    return (
        len(together) <= first.size * first.batch
        and bool((together >= 0).all())
        and len(together.unique()) == len(together)
    )


def _rows_of_items(call: Call) -> Tensor:
    """Return the token numbers of all rows of a call, those of its first head."""
    assert call.query_rows is not None
    batch, _, queries, _ = call.shape
    rows = call.query_rows
    rows = rows[:, 0] if rows.dim() > 2 else rows
    return rows.expand(batch, queries).reshape(-1)


def _joined(group: Sequence[Call]) -> Call:
    """Put the parts of one attention together at the places of their tokens.

    Raises
    ------
    CaptureError
        If parts are missing, or cannot be followed to tokens.
    """
    first = group[0]
    if any(isinstance(call.source, ReleasedAttention) for call in group):
        for call in group:
            call.release()
        return first
    for call in group:
        if call.query_rows is None or call.key_rows is None or call.unplaced is not None:
            raise CaptureError(
                f"{call.name} computes its attention in {len(group)} parts that cannot all be followed "
                "back to tokens, so its weights cannot be put together"
            )
    joint = joint_tokens(group)
    if joint is None and any(c.query_sequence is not first.query_sequence for c in group):
        _refuse_parts(group)
    pieces = []
    for call in group:
        piece = without_replaced(call, _piece(call, call.placement or _ordinary(call)))
        found = piece if joint is None else _among_all(joint, call, piece)
        if found is None:
            _refuse_parts(group)
        pieces.append(found)
    query, key = first.query_sequence, first.key_sequence
    if joint is not None:
        read = torch.cat([one.key_places.reshape(-1) for one in pieces])
        if len(read[read >= 0].unique()) < joint.sequence.size:
            _refuse_parts(group)  # tokens that ask and are never read are no tokens of the same matrix
        query = key = joint.sequence
    assert query is not None
    assert key is not None
    pieces = heads_together(group, pieces)
    source = PlacedAttention(tuple(pieces), key.batch, query.size, key.size, "blocks")
    sums = source.weights([0], slice(None)).sum(-1)
    blank = (sums == 0) & hidden_by_mask(first, query)[:, None]
    if not bool((((sums - 1).abs() < 1e-3) | blank).all()):
        raise CaptureError(
            f"{first.name} computes its attention in {len(group)} parts, of which some were not seen or "
            f"overlap: the rows put together sum to {sums.min().item():.3g}-{sums.max().item():.3g} instead "
            "of 1, so no map is given"
        )
    return Call(
        first.frame,
        first.root,
        source,
        first.forward,
        query,
        key,
        heads=first.heads,
        total_heads=first.total_heads,
        shape=source.shape,
        gradient_bytes=sum(call.gradient_bytes for call in group),
        parts=tuple(group),
        number=group[-1].number,
        follows=first.follows,
        blank=int(blank.sum()) * source.shape[1],
    )


def _refuse_parts(group: Sequence[Call]) -> NoReturn:
    raise CaptureError(
        f"{group[0].name} makes {len(group)} attention calls that belong together, from different sets of "
        "tokens (global tokens beside the text?): they do not make one matrix, so no map is given"
    )


def _among_all(joint: JointTokens, call: Call, piece: Piece) -> Piece | None:
    """Put a part at the places of its tokens among those of all parts."""
    assert call.query_sequence is not None
    assert call.key_sequence is not None
    rows = joint.places(call.query_sequence, piece.query_places, piece.items)
    columns = joint.places(call.key_sequence, piece.key_places, piece.items)
    return None if rows is None or columns is None else Piece(piece.source, piece.items, rows, columns)


def _ordinary(call: Call) -> Placement:
    batch, heads, queries, keys = call.source.shape
    assert call.query_rows is not None
    assert call.key_rows is not None
    assert call.query_sequence is not None
    assert call.key_sequence is not None
    items = torch.arange(batch)

    def places(rows: Tensor, size: int, count: int) -> Tensor:
        full = rows.reshape(-1, *rows.shape[-2:])[:, 0] if rows.dim() > 2 else rows
        full = full.expand(batch, count).to(torch.int64)
        return torch.where(full < 0, -1, full - items[:, None] * size)

    return Placement(
        torch.arange(batch * heads),
        batch,
        heads,
        items,
        places(call.query_rows, call.query_sequence.size, queries),
        places(call.key_rows, call.key_sequence.size, keys),
    )


def _piece(call: Call, placement: Placement) -> Piece:
    return Piece(call.source, placement.items, placement.query_places, placement.key_places)


def _placed(call: Call) -> Any:
    """Return the source of a call with windows at the positions of their tokens."""
    placement = call.placement
    if isinstance(call.source, ReleasedAttention):
        return call.source
    if placement is None or call.query_sequence is None or call.key_sequence is None:
        return call.source
    batch, queries, keys = call.key_sequence.batch, call.query_sequence.size, call.key_sequence.size
    if placement.is_whole(batch, queries, keys):
        return call.source
    return PlacedAttention((_piece(call, placement),), batch, queries, keys)


def _notes(call: Call, source: Any) -> tuple[str, ...]:
    notes = list(call.notes)
    if call.missing > 0:
        notes.append(
            "attention sink: rows sum to less than 1, the rest goes to a learned sink that is no token"
        )
    if isinstance(source, PlacedAttention) and _reaches_into_padding(source):
        notes.append("windows reach into padding: rows beside it sum to less than 1")
    blank = source.masked_rows() if isinstance(source, ProjectedAttention) else call.blank
    if blank:
        notes.append(f"{blank} rows are fully masked: their weights are 0")
    return tuple(notes)


def _reaches_into_padding(source: PlacedAttention) -> bool:
    """Tell whether some column of a window is no token, in none of the items that the window holds."""
    places: dict[int, Tensor] = {}
    for piece in source.pieces:
        name = id(piece.source)
        places[name] = torch.maximum(places.get(name, piece.key_places), piece.key_places)
    return any(bool((one < 0).any()) for one in places.values())


def _unplaced(call: Call) -> str | None:
    """Say why the batch axis of a call is not the model's, if it is not."""
    if call.unplaced is not None or call.placement is not None:
        return call.unplaced
    given = [*call.root.named.values()]
    items = call.first_axes
    batch = call.source.shape[0]
    known = [] if call.key_sequence is None else call.key_sequence.ancestors
    if any(one.modality == "pixels" and one.patch_size == (1, 1) and one.batch == batch for one in known):
        return None  # several pictures or frames in one item: each is an item of its own
    if any(_pictures(one) == batch and call.source.shape[3] != one.shape[1] for one in given):
        return None  # pairs of pictures, frames of a film: not a row for each place of a frame, over time
    if len(items) == 1 and batch not in items and batch % (min(items) or 1) == 0:
        return "its batch axis counts groups of tokens, and it is not known where these stand"
    return None


def _pictures(given: Tensor) -> int | None:
    """Return how many pictures an input of several for each item holds."""
    return given.shape[0] * given.shape[1] if given.dim() == 5 and given.is_floating_point() else None
