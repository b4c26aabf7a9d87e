"""Maps side by side, and how much each pair agrees."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.viz.figure import Figure, subplots
from attnlib.viz.theme import DIVERGING, SEQUENTIAL, colour_scale, look

__all__ = ["comparison_figure", "maps_figure"]

_TITLE, _MARGIN, _BAR = 34, 60, 110  # pixels: above each map, around the figure, beside it
_CELL, _LABELS = 26, 120  # pixels: row of the matrix, its labels below


def maps_figure(
    names: Sequence[str],
    maps: Float[Tensor, "map height width"],
    *,
    values: str = "share",
    limits: tuple[float, float] | None = None,
    columns: int = 6,
    width: int = 900,
    dark: bool = False,
) -> Figure:
    """Draw maps side by side in one range of colours.

    Parameters
    ----------
    names : one per map.
    maps : finished values, drawn as they are.
    values : what the values are, for the colour bar.
    limits : (lowest, highest) value of the colours; 0, or symmetric if signed, to the largest of all maps.
    columns : maps in a row, at most.
    width : of the figure in pixels.
    dark : light text on a dark ground.

    Raises
    ------
    InputError
        If the names are not as many as the maps.
    """
    return _figure(names, maps, None, values, "", limits, (0.0, 1.0), columns, width, dark)


def comparison_figure(
    names: Sequence[str],
    maps: Float[Tensor, "map height width"],
    agreement: Float[Tensor, "map map"],
    *,
    values: str = "agreement",
    limits: tuple[float, float] = (-1.0, 1.0),
    columns: int = 6,
    width: int = 900,
    dark: bool = False,
) -> Figure:
    """Draw maps in one range of colours, and below them a matrix of how much each pair agrees.

    Parameters
    ----------
    names : one per map.
    maps : finished values, drawn as they are.
    agreement : one number per pair.
    values : what the numbers of the matrix are.
    limits : range of these numbers.
    columns : maps in a row, at most.
    width : of the figure in pixels.
    dark : light text on a dark ground.

    Raises
    ------
    InputError
        If the names are not as many as the maps and the rows of the matrix.
    """
    return _figure(names, maps, agreement, "share", values, None, limits, columns, width, dark)


def _figure(
    names: Sequence[str],
    maps: Tensor,
    agreement: Tensor | None,
    values: str,
    matrix_values: str,
    limits: tuple[float, float] | None,
    matrix_limits: tuple[float, float],
    columns: int,
    width: int,
    dark: bool,
) -> Figure:
    count = len(names)
    if not count == maps.shape[0] == (count if agreement is None else agreement.shape[0]):
        raise InputError(f"{count} names for {maps.shape[0]} maps")
    columns = max(min(columns, count), 1)
    rows = -(-count // columns)
    tall = max(60.0, (width - _BAR - _MARGIN) / max(columns, 3) * maps.shape[1] / maps.shape[2])
    heights = [tall] * rows + ([] if agreement is None else [float(_CELL * count)])
    below = _LABELS if agreement is not None else 10
    inner = sum(heights) + _TITLE * (len(heights) - 1)
    specs: list[list[dict[str, int] | None]] = [[{} for _ in range(columns)] for _ in range(rows)]
    if agreement is not None:
        specs.append([{"colspan": columns}, *[None] * (columns - 1)])
    figure = subplots(
        rows=len(heights),
        cols=columns,
        specs=specs,
        row_heights=heights,
        subplot_titles=[*names, *[""] * (rows * columns - count), matrix_values],
        vertical_spacing=_TITLE / inner if len(heights) > 1 else 0.0,
        horizontal_spacing=0.015,
    )
    given = maps.detach().cpu().double().numpy()
    low, high = limits or _range(float(given.min()), float(given.max()))
    top = (sum(heights[:rows]) + _TITLE * (rows - 1)) / inner
    for place, (name, one) in enumerate(zip(names, given, strict=True)):
        row, column = place // columns + 1, place % columns + 1
        figure.add_trace(
            go.Heatmap(
                z=one,
                zmin=low,
                zmax=high,
                colorscale=colour_scale(DIVERGING if low < 0 else SEQUENTIAL),
                showscale=place == 0,
                colorbar={"title": {"text": values}, "thickness": 12, "len": top, "y": 1 - top / 2},
                hovertemplate=f"{name}<br>patch (%{{y}}, %{{x}})<br>%{{z:.4f}}<extra></extra>",
            ),
            row=row,
            col=column,
        )
        axis = next(figure.select_xaxes(row=row, col=column)).plotly_name.replace("axis", "")
        figure.update_xaxes(showticklabels=False, row=row, col=column)
        figure.update_yaxes(showticklabels=False, scaleanchor=axis, row=row, col=column)
    if agreement is not None:
        share = heights[-1] / inner
        figure.add_trace(
            go.Heatmap(
                z=agreement.detach().cpu().double().numpy(),
                x=list(names),
                y=list(names),
                zmin=matrix_limits[0],
                zmax=matrix_limits[1],
                colorscale=colour_scale(DIVERGING if matrix_limits[0] < 0 else SEQUENTIAL),
                colorbar={"thickness": 12, "len": share, "y": share / 2},
                texttemplate="%{z:.2f}",
                hovertemplate="%{y} and %{x}<br>%{z:.3f}<extra></extra>",
            ),
            row=rows + 1,
            col=1,
        )
    figure.update_layout(look(dark=dark), width=width, height=int(inner + _MARGIN + below))
    figure.update_layout(margin={"t": _MARGIN, "b": below})
    figure.update_annotations(font_size=12 if columns < 5 else 10)
    figure.update_xaxes(showgrid=False, zeroline=False, constrain="domain")
    figure.update_yaxes(showgrid=False, zeroline=False, autorange="reversed", constrain="domain")
    return figure


def _range(low: float, high: float) -> tuple[float, float]:
    """Return 0 to the highest value, or a symmetric range if there are negative ones."""
    if low < 0:
        most = max(-low, high)
        return -most, most
    return 0.0, high or 1.0
