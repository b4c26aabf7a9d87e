"""Maps side by side, and how much each pair agrees."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from attnlib.errors import InputError
from attnlib.viz.theme import DIVERGING, SEQUENTIAL, colour_scale, look

__all__ = ["comparison_figure"]


def comparison_figure(
    names: Sequence[str],
    maps: Float[Tensor, "map height width"],
    agreement: Float[Tensor, "map map"],
    *,
    values: str = "agreement",
    limits: tuple[float, float] = (-1.0, 1.0),
    columns: int = 4,
    width: int = 900,
    dark: bool = False,
) -> go.Figure:
    """Draw maps in one range of colours, and below them a matrix of how much each pair agrees.

    Parameters
    ----------
    names : one per map.
    maps : finished values, drawn as they are.
    agreement : one number per pair.
    values : what the numbers are.
    limits : range of the numbers.
    columns : maps side by side.
    width : of the figure in pixels.
    dark : light text on a dark ground.

    Raises
    ------
    InputError
        If the names are not as many as the maps.
    """
    if not len(names) == maps.shape[0] == agreement.shape[0]:
        raise InputError(f"{len(names)} names for {maps.shape[0]} maps and {agreement.shape[0]} rows")
    rows = -(-len(names) // columns)
    specs: list[list[dict[str, int] | None]] = [[{} for _ in range(columns)] for _ in range(rows)]
    specs.append([{"colspan": columns}, *[None] * (columns - 1)])
    share = 0.5 / rows
    figure = make_subplots(
        rows=rows + 1,
        cols=columns,
        specs=specs,
        row_heights=[share] * rows + [0.5],
        subplot_titles=[*names, *[""] * (rows * columns - len(names)), values],
        vertical_spacing=0.3 / (rows + 1),
        horizontal_spacing=0.02,
    )
    given = maps.detach().cpu().double().numpy()
    highest = float(given.max()) or 1.0
    for place, (name, one) in enumerate(zip(names, given, strict=True)):
        figure.add_trace(
            go.Heatmap(
                z=one,
                zmin=0.0,
                zmax=highest,
                colorscale=colour_scale(SEQUENTIAL),
                showscale=place == 0,
                colorbar={"title": {"text": "share"}, "thickness": 12, "len": 0.45, "y": 0.78},
                hovertemplate=f"{name}<br>patch (%{{y}}, %{{x}})<br>%{{z:.4f}}<extra></extra>",
            ),
            row=place // columns + 1,
            col=place % columns + 1,
        )
    figure.add_trace(
        go.Heatmap(
            z=agreement.detach().cpu().double().numpy(),
            x=list(names),
            y=list(names),
            zmin=limits[0],
            zmax=limits[1],
            colorscale=colour_scale(DIVERGING if limits[0] < 0 else SEQUENTIAL),
            colorbar={"thickness": 12, "len": 0.45, "y": 0.2},
            texttemplate="%{z:.2f}",
            hovertemplate="%{y} and %{x}<br>%{z:.3f}<extra></extra>",
        ),
        row=rows + 1,
        col=1,
    )
    figure.update_layout(look(dark=dark), width=width, height=170 * rows + 90 + 60 * len(names) + 120)
    figure.update_xaxes(showgrid=False, zeroline=False, constrain="domain")
    figure.update_yaxes(showgrid=False, zeroline=False, autorange="reversed", constrain="domain")
    for place in range(len(names)):
        row, column = place // columns + 1, place % columns + 1
        figure.update_xaxes(showticklabels=False, row=row, col=column)
        axis = next(figure.select_xaxes(row=row, col=column)).plotly_name.replace("axis", "")
        figure.update_yaxes(showticklabels=False, scaleanchor=axis, row=row, col=column)
    return figure
