"""One measure of many methods, with its intervals."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from attnlib.errors import InputError
from attnlib.viz.figure import Figure
from attnlib.viz.theme import look

__all__ = ["score_figure"]

Number = float | int


def score_figure(
    names: Sequence[str],
    values: Sequence[Number],
    *,
    low: Sequence[Number],
    high: Sequence[Number],
    constant: Number | None = None,
    measure: str = "value",
    dark: bool = False,
) -> Figure:
    """Draw the value of each method as a dot on its interval, in the order given (first on top).

    Parameters
    ----------
    names : methods.
    values, low, high : finished values and the ends of their intervals.
    constant : what a map that is the same everywhere gets; drawn as a dotted line.
    measure : what the values are, for the axis.
    dark : light on dark.

    Raises
    ------
    InputError
        If there is nothing to draw, or the lists differ in length.
    """
    if not names or not len(names) == len(values) == len(low) == len(high):
        raise InputError(
            f"a score figure needs as many values and ends as names, got {len(names)} names, "
            f"{len(values)} values, {len(low)} and {len(high)} ends"
        )
    figure = Figure(
        go.Scatter(
            x=list(values),
            y=list(names),
            mode="markers",
            marker={"size": 8},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [h - v for v, h in zip(values, high, strict=True)],
                "arrayminus": [v - one for v, one in zip(values, low, strict=True)],
            },
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    if constant is not None:
        figure.add_vline(x=constant, line_dash="dot", annotation_text="an even map")
    figure.update_layout(look(dark=dark), height=120 + 22 * len(names), margin_l=170)
    figure.update_xaxes(title_text=measure)
    figure.update_yaxes(autorange="reversed")
    return figure
