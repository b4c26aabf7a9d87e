"""Rows of words: for every word that looks at a picture, its attention over the patches."""

from __future__ import annotations

from collections.abc import Sequence

from attnlib.layout import TokenLayout
from attnlib.record import AttentionRecord, LayerAttention
from attnlib.widgets.text_source import token_labels

__all__ = ["MAX_WORDS", "Row", "row_form", "row_notes", "word_rows"]

MAX_WORDS = 512
"""Most words of one picture that a viewer holds."""
Row = tuple[str, tuple[int, ...]]
"""What a row is called, and the query tokens whose mean it is."""


def word_rows(
    record: AttentionRecord,
    layer: LayerAttention,
    layout: TokenLayout,
    item: int,
    tokens: Sequence[str] | None = None,
) -> list[Row]:
    """Return one row for each word that looks at the picture.

    All queries of cross-attention, or the text around the image in one sequence (what the head reads
    comes first); none where there is no text.
    """
    labels = token_labels(record, layer, item, "query", tokens)
    if layer.kind == "cross":
        places = list(range(len(labels)))
    elif "image" in layout.spans:
        patches = range(layout.num_tokens)[layout.patch_slice]
        places = [i for i in range(layout.num_prefix_tokens, len(labels)) if i not in patches]
        read = layout.readout_indices[-1] if isinstance(layout.readout, tuple) else -1
        places.sort(key=lambda i: i != read)
    else:
        return []
    return [(f"{labels[i]} (token {i})", (i,)) for i in places[:MAX_WORDS]]


def row_form(words: int, heads: int, layers: int, patches: int, budget_mb: float | int) -> tuple[str, bool]:
    """Return how rows are held within a budget: the number type, and whether heads are averaged."""
    for dtype, each in (("f32", 4), ("f16", 2), ("u8", 1)):
        if words * heads * patches * each * 4 / 3 <= budget_mb * 1e6:
            return dtype, False
    return ("f16" if words * layers * patches * 8 / 3 <= budget_mb * 1e6 else "u8"), True


def row_notes(form: tuple[str, bool], layer: LayerAttention, words: int) -> list[str]:
    """Say what was given up."""
    notes = []
    if form[1]:
        notes.append("for words the mean over the heads is held: single heads would be too large")
    if layer.kind == "cross" and layer.num_queries > words >= MAX_WORDS:
        notes.append(f"the first {MAX_WORDS} of {layer.num_queries} words are held")
    return notes
