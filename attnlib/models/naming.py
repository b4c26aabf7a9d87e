"""What a model and its inputs know about the tokens of a record: labels, words, and what the head reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attnlib.layout import TokenLayout
from attnlib.record import AttentionRecord

if TYPE_CHECKING:
    from attnlib.models.loaded import LoadedModel, Prepared

__all__ = ["name_tokens"]


def name_tokens(record: AttentionRecord, loaded: LoadedModel, prepared: Prepared) -> None:
    """Complete the layouts of a record with what only the model's maker and the tokenizer know.

    Streams are matched by their number of tokens; several texts in a batch have labels of their own.

    Parameters
    ----------
    record : just captured; its layouts are completed in place.
    loaded : the model; only an embedded one knows for certain what its head reads.
    prepared : the inputs that were captured.
    """
    known = loaded.layout if loaded.readout_is_known else None
    changed: dict[int, TokenLayout] = {}
    layouts = {}
    for stream, layout in record.layouts.items():
        new = layout
        if layout.grid is None and prepared.layouts:
            new = _named(layout, prepared)
        elif layout.grid is not None and known is not None:
            new = _changed(layout, {"readout": known.readout})
        if new is not layout:
            changed[id(layout)] = new
        layouts[stream] = new
    for layer in record.layers:
        layer.query_layout = changed.get(id(layer.query_layout), layer.query_layout)
        layer.key_layout = changed.get(id(layer.key_layout), layer.key_layout)
    record.layouts = layouts


def _named(layout: TokenLayout, prepared: Prepared) -> TokenLayout:
    given = prepared.layouts
    if any(one.num_tokens != layout.num_tokens for one in given):
        return layout
    read = [one.readout for one in given]
    changes: dict[str, Any] = {"notes": [*layout.notes, *given[0].notes]}
    if all(isinstance(one, tuple) for one in read):
        changes["readout"] = sorted({index for one in read if isinstance(one, tuple) for index in one})
    if len(given) == 1:
        changes |= {"tokens": given[0].tokens, "spans": {**layout.spans, **given[0].spans}}
    elif all(one.tokens is not None for one in given):
        changes["item_tokens"] = [one.tokens for one in given]
    return _changed(layout, changes)


def _changed(layout: TokenLayout, changes: Mapping[str, Any]) -> TokenLayout:
    return TokenLayout.from_dict({**layout.to_dict(), **changes})
