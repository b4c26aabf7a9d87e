"""Give each layer the layouts of its tokens, from where they were followed to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnlib.errors import LayoutError, NeedsError
from attnlib.hooks.calls import Call
from attnlib.hooks.origins import Origins, TokenSequence
from attnlib.hooks.reading import HeadRead, read_tokens
from attnlib.hooks.trail import CROSS_INPUTS
from attnlib.layout import TokenFacts, TokenLayout, image_layout, prefix_names, text_layout
from attnlib.record import AttentionRecord, LayerAttention, PlacedAttention
from attnlib.record.placed import Piece
from attnlib.record.sources import allowed_by

__all__ = ["ASSUMED", "JOINS_LATE", "Describer", "with_notes", "with_readout"]

ASSUMED = "what the head reads could not be followed: this is the usual choice"
JOINS_LATE = "through a class token that joins behind these layers; its row is the default"

Settled = Sequence[tuple[Call, LayerAttention]]


class Describer:
    """Find the layouts of the streams of one forward pass."""

    def __init__(self, model: nn.Module, origins: Origins, output: Any) -> None:
        self._origins = origins
        self._output = output
        config = getattr(model, "config", None)
        vision = getattr(config, "vision_config", None) or config
        self._prefix = prefix_names([(n, tuple(p.shape)) for n, p in model.named_parameters()], vision)
        self._declared = _is_causal(model)
        self._causal: dict[str, bool] = {}
        self._known: dict[int, TokenLayout | None] = {}
        self.problems: dict[str, str] = {}
        self._raw: dict[str, str] = {}
        self.unread: set[str] = set()
        self._read: dict[int, list[int]] = {}

    def describe(self, settled: Settled, record: AttentionRecord) -> None:
        """Put layouts, and which tokens are real, into the layers and the record."""
        self._restore_order(settled)
        for _, layer in settled:
            if layer.kind == "self" and layer.stream not in self._causal:
                self._causal[layer.stream] = self._is_causal(layer)
        self._read = _read_by_others(settled)
        owners: dict[int, str] = {}
        for call, layer in settled:
            if call.query_sequence is not None and layer.kind == "self":
                owners.setdefault(id(call.query_sequence), layer.stream)
        for call, layer in settled:
            if layer.unplaced is not None:  # its axes run over a window, not over the tokens
                if layer.kind == "self":
                    self._raw.setdefault(
                        layer.stream,
                        f"{layer.name} has weights inside windows only, not at the places of the tokens "
                        f"({layer.unplaced}): window_weights() gives them raw, without a layout",
                    )
                continue
            layer.query_layout = self._layout(call.query_sequence, layer.stream, layer.num_queries)
            layer.key_layout = self._layout(call.key_sequence, layer.stream, layer.num_keys)
            if layer.kind == "self" and layer.num_queries == layer.num_keys:
                layer.query_layout = layer.query_layout or layer.key_layout
                layer.key_layout = layer.key_layout or layer.query_layout
            if layer.kind == "self":
                continue
            sequence = call.key_sequence or self._handed_over(call)
            if sequence is not None:
                layer.key_stream = owners.get(id(sequence))
                layer.key_layout = layer.key_layout or self._layout(sequence, layer.stream, layer.num_keys)
        record.layouts = {**record.layouts, **self._streams([layer for _, layer in settled])}
        raw = (why for stream, why in self._raw.items() if stream not in record.layouts)
        record.layout_problem = next(iter(self.problems.values()), next(raw, None))
        for call, layer in settled:
            self._mark_seen(call, layer, record)

    def _handed_over(self, call: Call) -> TokenSequence | None:
        """Return the tokens that a crossing call was handed, where its keys went through a cache."""
        given = [one for word in CROSS_INPUTS if isinstance(one := call.frame.kwargs.get(word), Tensor)]
        found = [self._origins.get(one) for one in given]
        return next((one.sequence for one in found if one is not None), None)

    def _streams(self, layers: Sequence[LayerAttention]) -> Mapping[str, TokenLayout]:
        found = {}
        for stream in dict.fromkeys(layer.stream for layer in layers):
            own = [x for x in layers if x.stream == stream and x.kind == "self"] or [
                x for x in layers if x.stream == stream
            ]
            layouts = [(x.query_layout or x.key_layout) if x.kind == "self" else x.key_layout for x in own]
            known = [one for one in layouts if one is not None]
            if not known or layouts[-1] is None:
                continue
            last = known[-1]
            grids = list(dict.fromkeys(one.grid for one in known if one.grid is not None))
            if len(grids) > 1:
                words = ", ".join(f"{h}x{w}" for h, w in grids)
                last = with_notes(
                    last, (*last.notes, f"stages with grids of {words} patches; this is the last")
                )
            found[stream] = last
        return found

    def _layout(self, sequence: TokenSequence | None, stream: str, count: int) -> TokenLayout | None:
        if sequence is None or sequence.size != count:
            if stream == "vision" or not count:
                return None
            return text_layout(count, readout=[count - 1] if self._causal.get(stream, False) else None)
        if id(sequence) not in self._known:
            self._known[id(sequence)] = self._find(sequence, stream)
        return self._known[id(sequence)]

    def _is_causal(self, layer: LayerAttention) -> bool:
        """Tell whether no token of a layer sees those behind it, by a few rows of its first head."""
        size = layer.source.shape[2]
        declared = self._declared and layer.stream not in ("encoder", "vision", "audio")
        if size != layer.source.shape[3] or size < 2 or isinstance(layer.source, PlacedAttention):
            return declared
        rows = sorted({0, size // 2, size - 2})
        try:
            weights = layer.source.weights([0], rows)
        except NeedsError:  # of this layer only the shape was kept
            return declared
        return not any(bool(weights[:, :, i, row + 1 :].any()) for i, row in enumerate(rows))

    def _find(self, sequence: TokenSequence, stream: str) -> TokenLayout | None:
        facts = _facts(sequence)
        reading = read_tokens(self._output, self._origins, sequence)
        read = self._read.get(id(sequence))
        if read is not None:
            reading = HeadRead(read, True)
        apart = reading.tokens if reading is not None and isinstance(reading.tokens, tuple) else None
        readout = None if reading is None or isinstance(reading.tokens, tuple) else reading.tokens
        chosen = reading is not None and reading.chosen
        if isinstance(facts, str):
            self.problems.setdefault(stream, facts)
            return None
        if facts.grid is None or (facts.patches is not None and not any(p >= 0 for p in facts.patches)):
            if apart is not None:
                labels = text_layout(sequence.size).tokens
                return TokenLayout(None, tokens=labels, item_readouts=apart)
            if (readout is None or not chosen) and self._causal.get(stream, False):
                readout = [sequence.size - 1]
            return text_layout(sequence.size, readout=readout)
        try:
            layout = image_layout(facts, prefix=self._prefix, in_text=sequence.modality in ("ids", "mixed"))
        except LayoutError as error:
            self.problems.setdefault(stream, str(error))
            return None
        if layout.spans and self._causal.get(stream, False):
            return TokenLayout(
                layout.grid, layout.patch_size, layout.prefix_tokens, (sequence.size - 1,), spans=layout.spans
            )
        if readout is None:
            self.unread.add(stream)
            return with_notes(layout, [ASSUMED])
        return with_readout(layout, readout, chosen=chosen)

    def _restore_order(self, settled: Settled) -> None:
        """Put layers whose tokens were shuffled, or partly dropped, back at the places of the whole image."""
        found: dict[int, tuple[Tensor, int, TokenSequence] | None] = {}
        for call, layer in settled:
            if id(call.key_sequence) not in found:
                found[id(call.key_sequence)] = _shuffled(call.key_sequence)
            places = found[id(call.key_sequence)]
            if places is None or call.query_sequence is not call.key_sequence or call.placement is not None:
                continue
            order, size, whole = places
            batch = layer.batch_size
            piece = Piece(layer.source, torch.arange(batch), order, order)
            layer.source = PlacedAttention((piece,), batch, size, size, "shuffled")
            call.query_sequence = call.key_sequence = whole
            note = f"{order.shape[1]} of {size} tokens went in, shuffled; the others have weight 0"
            layer.notes = (*layer.notes, note)

    def _mark_seen(self, call: Call, layer: LayerAttention, record: AttentionRecord) -> None:
        if layer.stream in record.seen:
            return
        if isinstance(layer.source, PlacedAttention) and layer.source.kind_of_source == "shuffled":
            piece = layer.source.pieces[0]
            seen = torch.zeros(layer.batch_size, layer.num_keys, dtype=torch.bool)
            seen[piece.items[:, None], piece.key_places] = True
            record.seen = {**record.seen, layer.stream: seen}
            return
        if layer.kind != "self":
            return
        if isinstance(layer.source, PlacedAttention) and layer.source.kind_of_source == "blocks":
            seen = _covered(layer.source)
            if not bool(seen.all()):
                record.seen = {**record.seen, layer.stream: seen}
                return
        words = ("decoder_attention_mask",) if layer.stream == "decoder" else ("attention_mask",)
        words = (*words, "full_attention", "src_key_padding_mask")
        if layer.stream in ("vision", "audio") and "input_ids" in call.root.named:
            words = ("pixel_attention_mask",)  # the other masks are those of the text beside it
        for word in words:
            mask = call.root.named.get(word)
            if isinstance(mask, Tensor) and mask.dim() == 4 and mask.shape[2] in (1, layer.num_queries):
                mask = allowed_by(mask) if mask.is_floating_point() else mask.bool()
                mask = mask.flatten(1, 2).any(dim=1)  # padding is what no row may see
            sizes = (layer.num_queries, layer.num_keys)
            if isinstance(mask, Tensor) and mask.dim() == 2 and mask.shape[-1] in sizes:
                seen = ~mask.bool() if word.endswith("padding_mask") else mask.bool()
                if (
                    seen.shape[-1] > layer.num_queries
                ):  # of a cache that was filled before, or is filled later
                    later = not bool(seen[:, layer.num_queries :].any())
                    seen = seen[:, : layer.num_queries] if later else seen[:, -layer.num_queries :]
                if not bool(seen.all()):
                    record.seen = {**record.seen, layer.stream: seen.detach().cpu()}
                return


def _covered(source: PlacedAttention) -> Tensor:
    """Return the tokens that ask anywhere: a smaller picture leaves places of a batch's grid empty."""
    seen = torch.zeros(source.batch, source.num_queries + 1, dtype=torch.bool)
    for piece in source.pieces:
        places = torch.where(piece.query_places < 0, source.num_queries, piece.query_places)
        seen[piece.items[:, None], places] = True
    return seen[:, :-1]


def with_notes(layout: TokenLayout, notes: Sequence[str]) -> TokenLayout:
    """Return the layout with other notes."""
    return TokenLayout.from_dict({**layout.to_dict(), "notes": list(notes)})


def with_readout(layout: TokenLayout, tokens: Sequence[int], *, chosen: bool = True) -> TokenLayout:
    """Return the layout with the tokens that the head reads, "patches" if these are all patches."""
    all_of_them = layout.grid is not None and len(tokens) == layout.num_tokens
    if all_of_them and layout.num_prefix_tokens and not chosen:
        return layout  # every token comes out: the body has no head of its own
    patches = list(range(layout.num_tokens))[layout.patch_slice] if layout.grid is not None else None
    read = "patches" if list(tokens) == patches else list(tokens)
    return TokenLayout.from_dict({**layout.to_dict(), "readout": read})


def _read_by_others(settled: Settled) -> dict[int, list[int]]:
    """Return what pooling heads, and decoders by cross-attention, read of other sequences."""
    found: dict[int, set[int]] = {}
    for call, layer in settled:
        sequence = call.key_sequence
        if sequence is None or layer.kind not in ("pool", "cross") or call.query_sequence is sequence:
            continue
        rows = torch.arange(sequence.size)
        if layer.kind == "cross" and call.key_rows is not None:
            rows = call.key_rows.unique().to(torch.int64)
        found.setdefault(id(sequence), set()).update((rows[rows >= 0] % sequence.size).tolist())
    return {name: sorted(tokens) for name, tokens in found.items() if tokens}


def _patch_size(sequence: TokenSequence, grid: tuple[int, int]) -> tuple[int, int] | None:
    """Return the pixels that one token covers; None if that many do not fit into the picture."""
    known = [one for one in sequence.ancestors if one.patch_size is not None]
    size = known[0].patch_size if known and known[0].grid == grid else None
    pixels = next((one.grid for one in known if one.modality == "pixels" and one.patch_size == (1, 1)), None)
    if pixels is None:
        return size
    if size is not None and all(n * side <= whole for n, side, whole in zip(grid, size, pixels, strict=True)):
        return size
    if any(whole % n for n, whole in zip(grid, pixels, strict=True)):
        return None
    return pixels[0] // grid[0], pixels[1] // grid[1]


def _facts(sequence: TokenSequence) -> TokenFacts | str:
    """Follow a sequence back to the grid of patches it comes from."""
    if sequence.grid is not None:
        return TokenFacts(sequence.size, sequence.grid, _patch_size(sequence, sequence.grid))
    numbers = torch.arange(sequence.batch * sequence.size).view(sequence.batch, sequence.size)
    for one in sequence.ancestors:
        if one.grid is not None and one.patch_size != (1, 1):
            items = torch.where(numbers < 0, -1, numbers // one.size)
            within = torch.where(numbers < 0, -1, numbers % one.size)
            if bool((within != within[:1]).any()):
                return (
                    "the image stands at different places in the items of the batch: capture them one by "
                    "one, or give record.with_layout(TokenLayout(...))"
                )
            if len(items[0][items[0] >= 0].unique()) > 1:
                return "several images stand in one sequence: give record.with_layout(TokenLayout(...))"
            return TokenFacts(sequence.size, one.grid, _patch_size(one, one.grid), tuple(within[0].tolist()))
        if one.parents is None or one.coarse:
            break
        parents = one.parents.reshape(-1).to(torch.int64)
        numbers = torch.where(numbers < 0, -1, parents[numbers.clamp(min=0)])
    return TokenFacts(sequence.size)


def _shuffled(sequence: TokenSequence | None) -> tuple[Tensor, int, TokenSequence] | None:
    """Return where the tokens of a shuffled sequence belong: places, number of places, whole sequence."""
    if sequence is None or sequence.parents is None or sequence.up is None or sequence.up.grid is None:
        return None
    if sequence.coarse or sequence.grid is not None:
        return None
    up, parents = sequence.up, sequence.parents.to(torch.int64)
    if up.batch != sequence.batch or up.patch_size == (1, 1):
        return None
    lead = int((parents[0] < 0).sum())
    body = parents[:, lead:]
    if bool((parents[:, :lead] >= 0).any()) or bool((body < 0).any()) or body.shape[1] == 0:
        return None
    body = body - torch.arange(sequence.batch)[:, None] * up.size
    if bool((body < 0).any()) or bool((body >= up.size).any()):
        return None
    natural = torch.arange(up.size).expand(sequence.batch, up.size)
    if body.shape == natural.shape and bool((body == natural).all()):
        return None
    size = lead + up.size
    places = torch.cat([torch.arange(lead).expand(sequence.batch, lead), body + lead], 1)
    numbers = torch.arange(sequence.batch)[:, None] * up.size + torch.arange(up.size)
    whole = TokenSequence(
        up.root,
        up.batch,
        size,
        up=up,
        parents=torch.cat([torch.full((up.batch, lead), -1), numbers], 1).to(torch.int32),
        modality=up.modality,
    )
    return places, size, whole


def _is_causal(model: nn.Module) -> bool:
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        return True
    flags = [getattr(one, "is_causal", None) for one in model.modules()]
    known = [one for one in flags if isinstance(one, bool)]
    return bool(known) and any(known)
