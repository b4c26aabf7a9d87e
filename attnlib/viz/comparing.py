"""Maps side by side, and how much each pair agrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    sheet = _Sheet(_checked(names, maps), columns, width, maps.shape[1] / maps.shape[2])
    figure = sheet.figure([*names])
    _add_maps(figure, sheet, names, maps, values, limits)
    return _finished(figure, sheet, dark)


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
    count = _checked(names, maps, agreement)
    sheet = _Sheet(count, columns, width, maps.shape[1] / maps.shape[2], matrix=float(_CELL * count))
    figure = sheet.figure([*names], values)
    _add_maps(figure, sheet, names, maps, "share", None)
    _add_matrix(figure, sheet, names, agreement, limits)
    return _finished(figure, sheet, dark)


@dataclass(frozen=True)
class _Sheet:
    """Where the maps lie, and the matrix below them.

    Parameters
    ----------
    count : number of maps.
    wanted : maps in a row, at most.
    width : of the figure in pixels.
    aspect : height of a map over its width.
    matrix : height of the matrix in pixels; 0 = none.
    """

    count: int
    wanted: int
    width: int
    aspect: float
    matrix: float = 0.0

    @property
    def columns(self) -> int:
        return max(min(self.wanted, self.count), 1)

    @property
    def rows(self) -> int:
        """Rows of maps."""
        return -(-self.count // self.columns)

    @property
    def heights(self) -> list[float]:
        tall = max(60.0, (self.width - _BAR - _MARGIN) / max(self.columns, 3) * self.aspect)
        return [tall] * self.rows + ([self.matrix] if self.matrix else [])

    @property
    def inner(self) -> float:
        """Height of all that is drawn, with the titles between."""
        return sum(self.heights) + _TITLE * (len(self.heights) - 1)

    def figure(self, titles: list[str], matrix_title: str = "") -> Figure:
        """Return the empty axes, one a map, with the titles above."""
        specs: list[list[dict[str, int] | None]] = [
            [{} for _ in range(self.columns)] for _ in range(self.rows)
        ]
        if self.matrix:
            specs.append([{"colspan": self.columns}, *[None] * (self.columns - 1)])
        return subplots(
            rows=len(self.heights),
            cols=self.columns,
            specs=specs,
            row_heights=self.heights,
            subplot_titles=[*titles, *[""] * (self.rows * self.columns - self.count), matrix_title],
            vertical_spacing=_TITLE / self.inner if len(self.heights) > 1 else 0.0,
            horizontal_spacing=0.015,
        )


def _checked(names: Sequence[str], maps: Tensor, agreement: Tensor | None = None) -> int:
    """Return the number of maps."""
    count = len(names)
    if not count == maps.shape[0] == (count if agreement is None else agreement.shape[0]):
        raise InputError(f"{count} names for {maps.shape[0]} maps")
    return count


def _add_maps(
    figure: Figure,
    sheet: _Sheet,
    names: Sequence[str],
    maps: Tensor,
    values: str,
    limits: tuple[float, float] | None,
) -> None:
    given = maps.detach().cpu().double().numpy()
    low, high = limits or _range(float(given.min()), float(given.max()))
    top = (sum(sheet.heights[: sheet.rows]) + _TITLE * (sheet.rows - 1)) / sheet.inner
    for place, (name, one) in enumerate(zip(names, given, strict=True)):
        row, column = place // sheet.columns + 1, place % sheet.columns + 1
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


def _add_matrix(
    figure: Figure, sheet: _Sheet, names: Sequence[str], agreement: Tensor, limits: tuple[float, float]
) -> None:
    share = sheet.matrix / sheet.inner
    figure.add_trace(
        go.Heatmap(
            z=agreement.detach().cpu().double().numpy(),
            x=list(names),
            y=list(names),
            zmin=limits[0],
            zmax=limits[1],
            colorscale=colour_scale(DIVERGING if limits[0] < 0 else SEQUENTIAL),
            colorbar={"thickness": 12, "len": share, "y": share / 2},
            texttemplate="%{z:.2f}",
            hovertemplate="%{y} and %{x}<br>%{z:.3f}<extra></extra>",
        ),
        row=sheet.rows + 1,
        col=1,
    )


def _finished(figure: Figure, sheet: _Sheet, dark: bool) -> Figure:
    below = _LABELS if sheet.matrix else 10
    figure.update_layout(look(dark=dark), width=sheet.width, height=int(sheet.inner + _MARGIN + below))
    figure.update_layout(margin={"t": _MARGIN, "b": below})
    figure.update_annotations(font_size=12 if sheet.columns < 5 else 10)
    figure.update_xaxes(showgrid=False, zeroline=False, constrain="domain")
    figure.update_yaxes(showgrid=False, zeroline=False, autorange="reversed", constrain="domain")
    return figure


def _range(low: float, high: float) -> tuple[float, float]:
    """Return 0 to the highest value, or a symmetric range if there are negative ones."""
    if low < 0:
        most = max(-low, high)
        return -most, most
    return 0.0, high or 1.0
