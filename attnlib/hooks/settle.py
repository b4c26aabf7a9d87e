"""From the calls of a forward pass to the layers of a record: pieces joined, kind and stream found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnlib.errors import CaptureError
from attnlib.hooks.beside import BESIDE, beside_each_other
from attnlib.hooks.calls import Call
from attnlib.hooks.chosen import count_chosen_queries, in_decoder
from attnlib.hooks.inner import inner_apart
from attnlib.hooks.origins import TokenSequence
from attnlib.hooks.placement import Placement
from attnlib.hooks.trail import CROSS_INPUTS
from attnlib.record import LayerAttention, ProjectedAttention
from attnlib.record.placed import Piece, PlacedAttention
from attnlib.record.released import ReleasedAttention

__all__ = ["Settler"]

_STREAM_WORDS = (
    ("vision", ("vision", "visual", "image", "pixel")),
    ("text", ("text", "language")),
    ("audio", ("audio", "speech")),
)


class Settler:
    """Name, sort and join calls; keeps count of the layers of each stream over several forward passes."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        config = getattr(model, "config", None)
        self._two_sided = bool(getattr(config, "is_encoder_decoder", False))
        self._counts: dict[str, int] = {}

    def settle(self, calls: Sequence[Call], *, step: int | None = None) -> list[tuple[Call, LayerAttention]]:
        """Turn the calls of one forward pass into layers, in call order."""
        merged = [_joined(group) if len(group) > 1 else group[0] for group in _grouped(calls)]
        has_decoder = {in_decoder(call) for call in merged}
        pooled = _pool_sequences(merged)
        if step:
            self._counts = {}
        layers = []
        streams = inner_apart(merged, [self._stream(call, len(has_decoder) == 2) for call in merged])
        for call, stream in zip(merged, streams, strict=True):
            index = self._counts.get(stream, 0)
            self._counts[stream] = index + 1
            kind = _kind(call, pooled)
            if stream == "decoder":
                count_chosen_queries(call)
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
        return layers

    def preview(
        self, calls: Sequence[Call], *, step: int | None
    ) -> list[tuple[Sequence[Call], str, int, str]]:
        """Say which layers these calls make so far: the calls of each, its stream, index and kind."""
        groups = _grouped(calls)
        firsts = [group[0] for group in groups]
        mixed = len({in_decoder(call) for call in firsts}) == 2
        pooled = _pool_sequences(firsts)
        counts = {} if step else dict(self._counts)
        named = []
        streams = inner_apart(firsts, [self._stream(call, mixed) for call in firsts])
        for group, stream in zip(groups, streams, strict=True):
            index = counts.get(stream, 0)
            counts[stream] = index + 1
            named.append((group, stream, index, _kind(group[0], pooled)))
        return named

    def _stream(self, call: Call, mixed: bool) -> str:
        parts = call.name.lower().split(".")
        roots = _roots(call.query_sequence)
        if self._two_sided or mixed:
            if any("decoder" in part for part in parts):
                return "decoder"
            if self._two_sided and not any("decoder" in part for part in parts):
                named = _by_words(parts)
                return named if named == "vision" and "pixel_values" not in roots else "encoder"
        return _by_words(parts) or self._by_own_word(call) or _by_modality(call)

    def _by_own_word(self, call: Call) -> str | None:
        """Return what the nearest model around a call says it takes in, if that is one thing other than text.

        Text is what a model says that says nothing, so it is no answer.
        """
        path = call.name
        while True:
            said = getattr(self._model.get_submodule(path), "input_modalities", None)
            if said is not None:
                words = {said} if isinstance(said, str) else {str(one) for one in said}
                if words and words <= {"image", "video"}:
                    return "vision"
                return "audio" if words == {"audio"} else None
            if not path:
                return None
            path = path.rpartition(".")[0]


def _by_words(parts: Iterable[str]) -> str | None:
    for part in parts:
        for stream, words in _STREAM_WORDS:
            if any(word in part for word in words):
                return stream
    return None


def _by_modality(call: Call) -> str:
    """Name a stream by what goes in: pixels, token ids, or an argument whose name says it."""
    sequences = [one for one in (call.query_sequence, call.key_sequence) if one is not None]
    known = [one for sequence in sequences for one in sequence.ancestors]
    for one in known:
        if one.modality == "mixed":
            return "tokens"
        if one.modality in ("pixels", "ids"):
            return "vision" if one.modality == "pixels" else "text"
    named = _by_words(one.root.lower() for one in known if one.root)
    if named or any(one.modality == "states" for one in known):
        return named or "tokens"
    given = [one for one in (*call.root.args, *call.root.kwargs.values()) if isinstance(one, Tensor)]
    if given and not any(one.is_floating_point() for one in given):
        return "text"
    pictures = given and all(one.dim() >= 4 and one.is_floating_point() for one in given)
    return "vision" if pictures or any(one.grid is not None for one in known) else "tokens"


def _roots(sequence: TokenSequence | None) -> list[str]:
    return [] if sequence is None else [one.root for one in sequence.ancestors if one.root]


def _pool_sequences(calls: Sequence[Call]) -> set[int]:
    """Sequences of learned queries that never attend to themselves."""
    own = {
        id(c.query_sequence)
        for c in calls
        if c.query_sequence is not None and c.query_sequence is c.key_sequence
    }
    return {
        id(c.query_sequence)
        for c in calls
        if c.query_sequence is not None and not c.query_sequence.root and id(c.query_sequence) not in own
    }


def _kind(call: Call, pooled: set[int]) -> str:
    """Tell self, cross and pooling attention apart by where queries and keys come from."""
    query, key = call.query_sequence, call.key_sequence
    _, _, num_queries, num_keys = call.shape
    if call.unplaced is not None and num_queries > 1 and _reads_one_thing(call):
        return "self"  # blocks of one sequence, each of which may see its neighbours too
    if query is not None and key is not None:
        if query is key and _one_reads_all(call):
            return "pool"
        if query is key or key in query.ancestors or query in key.ancestors:
            return "self"
        if _named_cross(call):
            return "cross"
        if _roots(query) and _roots(query)[-1:] == _roots(key)[-1:]:
            crossed = _roots(query) and _has_cross_input(call)
            return "cross" if crossed else "self"
        if not query.root:
            return "pool" if num_queries == 1 or id(query) in pooled else "cross"
        if key.root:
            return "cross"
    if _has_cross_input(call):
        return "cross"
    if num_queries == num_keys or (query is not None and key is None):
        return "self"
    return "pool" if num_queries == 1 else "cross"


def _one_reads_all(call: Call) -> bool:
    """Tell whether one token of a sequence reads all of it, as in class attention."""
    _, _, num_queries, num_keys = call.shape
    sequence = call.key_sequence
    if (
        num_queries != 1
        or sequence is None
        or num_keys < 2
        or num_keys != sequence.size
        or call.key_rows is None
    ):
        return False
    return not bool((call.key_rows < 0).any())


def _reads_one_thing(call: Call) -> bool:
    """Tell whether the module that made a call was given the states of one sequence only, or says so."""
    if "self" in call.name.lower().rpartition(".")[2]:
        return True
    named = [("", one) for one in call.frame.args] + [*call.frame.kwargs.items()]
    beside = ("mask", "bias", "position", "embed")
    states = [
        one
        for name, one in named
        if isinstance(one, Tensor)
        and one.dim() == 3
        and one.is_floating_point()
        and not any(word in name for word in beside)
    ]
    return len(states) == 1


def _named_cross(call: Call) -> bool:
    return any("cross" in part for part in call.name.lower().split(".")[-2:])


def _has_cross_input(call: Call) -> bool:
    return any(isinstance(call.frame.kwargs.get(word), Tensor) for word in CROSS_INPUTS)


def _grouped(calls: Sequence[Call]) -> list[Sequence[Call]]:
    """Group the calls of one module that each hold a part of the keys or queries of the same tokens."""
    by_frame: dict[int, list[Call]] = {}
    for call in calls:
        by_frame.setdefault(id(call.frame), []).append(call)
    result: list[Sequence[Call]] = []
    for group in by_frame.values():
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
    return sorted(result, key=lambda group: order[id(group[0])])


def _share_out(group: Sequence[Call]) -> bool:
    """Tell whether the calls share out the tokens of one sequence, as for pictures packed in a row."""
    first = group[0].query_sequence
    if len(group) < 2 or first is None or any(c.query_sequence is not first for c in group):
        return False
    rows = [c.query_rows.reshape(-1, c.shape[2])[0] for c in group if c.query_rows is not None]
    if len(rows) < len(group) or any(c.key_rows is None or c.shape[0] > 1 for c in group):
        return False
    together = torch.cat(rows)
    return (
        len(together) <= first.size
        and bool((together >= 0).all())
        and len(together.unique()) == len(together)
    )


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
        if call.query_rows is None or call.key_rows is None:
            raise CaptureError(
                f"{call.name} computes its attention in {len(group)} parts that cannot all be followed "
                "back to tokens, so its weights cannot be put together"
            )
    pieces = []
    for call in group:
        placement = call.placement or _ordinary(call)
        pieces.append(_piece(call, placement))
    assert first.query_sequence is not None
    assert first.key_sequence is not None
    source = PlacedAttention(
        tuple(pieces), first.key_sequence.batch, first.query_sequence.size, first.key_sequence.size, "blocks"
    )
    sums = source.weights([0], slice(None)).sum(-1)
    if not bool(((sums - 1).abs() < 1e-3).all()):
        raise CaptureError(
            f"{first.name} computes its attention in {len(group)} parts of which some were not seen: the "
            f"rows put together sum to {sums.min().item():.3g}-{sums.max().item():.3g} instead of 1"
        )
    return Call(
        first.frame,
        first.root,
        source,
        first.forward,
        first.query_sequence,
        first.key_sequence,
        heads=first.heads,
        total_heads=first.total_heads,
        shape=source.shape,
        gradient_bytes=sum(call.gradient_bytes for call in group),
    )


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
    trivial = (
        placement.windows == batch
        and bool((placement.items == torch.arange(batch)).all())
        and _everything(placement.query_places, queries)
        and _everything(placement.key_places, keys)
    )
    if trivial:
        return call.source
    return PlacedAttention((_piece(call, placement),), batch, queries, keys)


def _everything(places: Tensor, size: int) -> bool:
    return places.shape[1] == size and bool((places == torch.arange(size)).all())


def _notes(call: Call, source: Any) -> tuple[str, ...]:
    notes = list(call.notes)
    if call.missing > 0:
        notes.append(
            "attention sink: rows sum to less than 1, the rest goes to a learned sink that is no token"
        )
    if isinstance(source, PlacedAttention):
        if any(bool((piece.key_places < 0).any()) for piece in source.pieces):
            notes.append("windows reach into padding: rows beside it sum to less than 1")
    elif isinstance(source, ProjectedAttention):
        blank = source.masked_rows()
        if blank:
            notes.append(f"{blank} rows are fully masked: their weights are 0")
    return tuple(notes)


def _unplaced(call: Call) -> str | None:
    """Say why the batch axis of a call is not the model's, if it is not."""
    if call.unplaced is not None or call.placement is not None:
        return call.unplaced
    given = [one for one in (*call.root.args, *call.root.kwargs.values()) if isinstance(one, Tensor)]
    items = {one.shape[0] for one in given if one.dim() > 1}
    batch = call.source.shape[0]
    known = [] if call.key_sequence is None else call.key_sequence.ancestors
    if any(one.modality == "pixels" and one.patch_size == (1, 1) and one.batch == batch for one in known):
        return None  # several pictures or frames in one item: each is an item of its own
    if len(items) == 1 and batch not in items and batch % (min(items) or 1) == 0:
        return "its batch axis counts groups of tokens, and it is not known where these stand"
    return None
