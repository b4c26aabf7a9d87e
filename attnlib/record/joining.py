"""The steps of one layer of a generation, joined to one layer with a row for each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attnlib.errors import InputError
from attnlib.layout import with_generated
from attnlib.record.layer import LayerAttention
from attnlib.record.placed import JoinedAttention
from attnlib.record.steps import REORDERED, SLID, sees_nothing_behind

__all__ = ["join_steps"]


def join_steps(steps: Sequence[LayerAttention]) -> LayerAttention:
    """Return one layer for the steps of a layer, one row for each token: lower-triangular.

    Parameters
    ----------
    steps : in order. A layer that made no step after the first, such as one of the image's, stays as it is.

    Raises
    ------
    InputError
        If the steps do not continue one another.
    """
    first = steps[0]
    if len(steps) == 1:
        return first
    rows = 0
    starts: list[int] = []
    kept: list[int] = []
    fixed = False
    for layer in steps:
        if REORDERED in layer.notes:
            raise InputError(
                f"step {layer.step} of {layer.name} continues {REORDERED}: its steps cannot be joined; "
                "generate with num_beams=1 and a plain cache, or capture model(output_ids) once"
            )
        kept += [rows + i for i in layer.queries or range(layer.num_queries)]
        rows += layer.num_queries
        starts.append(rows - layer.num_keys if SLID in layer.notes else 0)
        if first.kind != "self" or layer.num_keys + starts[-1] == rows:
            continue
        fixed = sees_nothing_behind(layer.source, rows)
        if not fixed:
            raise InputError(
                f"step {layer.step} of {layer.name} sees {layer.num_keys} keys where {rows} tokens have "
                "passed (a window, or a cache that was filled before the capture): its steps cannot be joined"
            )
    layout = with_generated(first.query_layout, rows)
    return replace(
        first,
        source=JoinedAttention(tuple(one.source for one in steps), tuple(starts), rows if fixed else None),
        step=None,
        query_layout=layout,
        key_layout=layout if first.kind == "self" else first.key_layout,
        queries=None if len(kept) == rows else tuple(kept),
        total_queries=rows,
    )
