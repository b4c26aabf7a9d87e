"""Records of a generation: its steps joined, so that every token, written or given, is one row."""

from __future__ import annotations

from dataclasses import replace

from attnlib.layout import TokenLayout
from attnlib.record import AttentionRecord

__all__ = ["JOINED", "with_steps_joined"]

JOINED = "the steps of the generation are joined: one row per token, given or written"


def with_steps_joined(record: AttentionRecord) -> AttentionRecord:
    """Return a record whose generation steps are one layer each; any other record as it is.

    A picture inside the sequence keeps its place: written tokens come after everything that was given.
    """
    if len({layer.step for layer in record.layers if layer.step is not None}) < 2:
        return record
    joined = record.joined()
    layouts = dict(joined.layouts)
    for name, before in record.layouts.items():
        after = joined.layouts.get(name)
        if before.grid is not None and after is not None and after.num_tokens > before.num_tokens:
            layouts[name] = _longer(before, after.num_tokens)
    layers = tuple(
        replace(layer, query_layout=layouts[layer.stream], key_layout=layouts[layer.stream])
        if layer.kind == "self"
        and layer.stream in layouts
        and layer.num_keys == layouts[layer.stream].num_tokens
        else layer
        for layer in joined.layers
    )
    return replace(joined, layers=layers, layouts=layouts)


def _longer(layout: TokenLayout, num_tokens: int) -> TokenLayout:
    """Return the layout of a sequence to which tokens were added at the end."""
    tokens = None
    if layout.tokens is not None:
        tokens = [*layout.tokens, *(f"written {i}" for i in range(1, num_tokens - layout.num_tokens + 1))]
    spans = {**layout.spans, "image": (layout.patch_start, layout.patch_start + layout.num_patches)}
    spans["written"] = (layout.num_tokens, num_tokens)
    return TokenLayout(
        layout.grid,
        layout.patch_size,
        layout.prefix_tokens,
        (num_tokens - 1,),
        tokens,
        spans,
        layout.notes,
    )
