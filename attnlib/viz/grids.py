"""Figures over layers and heads: many small maps, one matrix, and profiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.layout import TokenLayout
from attnlib.profiles import LayerProfile
from attnlib.viz.figure import Figure, subplots
from attnlib.viz.matrix import matrix_image
from attnlib.viz.theme import DIVERGING, FAINT, SEQUENTIAL, colour_scale, look

__all__ = ["attention_matrix", "layers_and_heads", "profile_figure"]


def layers_and_heads(
    maps: Float[Tensor, "layer head height width"],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    limits: tuple[float | int, float | int] | None = None,
    values: str = "value",
    title: str | None = None,
    width: int = 860,
    dark: bool = False,
) -> Figure:
    """Draw one small map per layer (down) and head (across), all in one range of colours.

    Parameters
    ----------
    maps : finished values, drawn as they are.
    layers, heads : original indices, for the labels; counted from 0 if omitted.
    limits : (lowest, highest) value of the colour map; 0 (or symmetric, if signed) to the largest
        value of all maps if omitted.
    values : what the values are, for the colour bar.
    title : heading.
    width : of the figure in pixels.
    dark : light text on a dark ground.

    Returns
    -------
    A figure with one heatmap; a gap of one empty row and column lies between the small maps.

    Raises
    ------
    InputError
        If the labels are not as many as the maps.
    """
    rows, columns = maps.shape[:2]
    layers, heads = _labels(layers, rows, "layers"), _labels(heads, columns, "heads")
    given = maps.detach().cpu().double().numpy()
    height, breadth = given.shape[-2:]
    tall, broad = height + 1, breadth + 1
    mosaic = np.full((rows * tall - 1, columns * broad - 1), np.nan)
    about = np.full((*mosaic.shape, 4), -1, dtype=np.int16)
    for row in range(rows):
        for column in range(columns):
            part = np.s_[row * tall : row * tall + height, column * broad : column * broad + breadth]
            mosaic[part] = given[row, column]
            about[part][..., 0], about[part][..., 1] = layers[row], heads[column]
            about[part][..., 2], about[part][..., 3] = np.indices((height, breadth))
    low, high = limits or _limits(given)
    figure = Figure(
        go.Heatmap(
            z=mosaic.astype(np.float32),  # half the page; far finer than a colour
            customdata=about,
            hovertemplate="layer %{customdata[0]}, head %{customdata[1]}<br>patch (%{customdata[2]}, "
            "%{customdata[3]})<br>%{z:.4g}<extra></extra>",
            hoverongaps=False,
            colorscale=colour_scale(DIVERGING if low < 0 else SEQUENTIAL),
            zmin=low,
            zmax=high,
            colorbar={"title": {"text": values, "side": "right"}, "thickness": 14},
        )
    )
    figure.update_layout(look(dark=dark), title_text=title or "", margin_t=104 if title else 56)
    drawn = (width - 190) * mosaic.shape[0] / mosaic.shape[1]
    figure.update_layout(width=width, height=int(np.clip(drawn, 160, 1400)) + 110)
    ticks = {"tickmode": "array", "showgrid": False, "zeroline": False}
    across = [column * broad + (breadth - 1) / 2 for column in range(columns)]
    down = [row * tall + (height - 1) / 2 for row in range(rows)]
    figure.update_xaxes(
        ticks, tickvals=across, ticktext=[str(h) for h in heads], title_text="head", side="top"
    )
    figure.update_yaxes(ticks, tickvals=down, ticktext=[str(i) for i in layers], title_text="layer")
    figure.update_xaxes(constrain="domain")
    figure.update_yaxes(autorange="reversed", scaleanchor="x", constrain="domain", constraintoward="top")
    return figure


def attention_matrix(
    weights: Float[Tensor, "query key"],
    *,
    layout: TokenLayout | None = None,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    limits: tuple[float | int, float | int] | None = None,
    numbers: bool | None = None,
    title: str | None = None,
    width: int = 620,
    dark: bool = False,
) -> Figure:
    """Draw one attention matrix: each row is a query (receives), each column a key (gives).

    Parameters
    ----------
    weights : finished values, drawn as they are.
    layout : names the tokens of both axes, and draws a line after the prefix tokens.
    queries, keys : names of the rows and columns; taken from the layout, or numbers, if omitted.
    limits : (lowest, highest) value of the colour map.
    numbers : write the value into each cell; for up to 12 rows and columns if omitted.
    title : heading.
    width : of the figure in pixels.
    dark : light text on a dark ground.

    Raises
    ------
    InputError
        If the names are not as many as the rows and columns.
    """
    given = weights.detach().cpu().double().numpy()
    down, across = given.shape
    query_names = _names(queries, layout, down, "queries")
    key_names = _names(keys, layout, across, "keys")
    low, high = limits or _limits(given)
    figure = Figure(
        go.Heatmap(
            z=given,
            hovertemplate="query %{customdata[0]}<br>key %{customdata[1]}<br>%{z:.4g}<extra></extra>",
            customdata=np.stack(np.meshgrid(query_names, key_names, indexing="ij"), axis=-1)
            if given.size <= 10_000
            else None,
            colorscale=colour_scale(DIVERGING if low < 0 else SEQUENTIAL),
            zmin=low,
            zmax=high,
            colorbar={"thickness": 14},
            texttemplate="%{z:.2f}" if (max(given.shape) <= 12 if numbers is None else numbers) else None,
        )
    )
    if given.size > 10_000:
        figure.update_traces(hovertemplate="query %{y}, key %{x}<br>%{z:.4g}<extra></extra>")
    figure.update_layout(look(dark=dark), title_text=title or "", width=width, margin_t=104 if title else 56)
    drawn = (width - 160) * down / across
    figure.update_layout(height=int(np.clip(drawn, 120, 900)) + 150)
    named = {"tickmode": "array", "showgrid": False, "zeroline": False}
    step = max(1, -(-max(given.shape) // 40))
    figure.update_xaxes(
        named, tickvals=list(range(0, across, step)), ticktext=key_names[::step], title_text="key (gives)"
    )
    figure.update_yaxes(
        named,
        tickvals=list(range(0, down, step)),
        ticktext=query_names[::step],
        title_text="query (receives)",
        autorange="reversed",
        scaleanchor="x",
        constrain="domain",
    )
    figure.update_xaxes(constrain="domain", side="top")
    if layout is not None and 0 < layout.num_prefix_tokens < min(down, across):
        edge = layout.num_prefix_tokens - 0.5
        figure.add_hline(edge, line={"color": "white", "width": 1})
        figure.add_vline(edge, line={"color": "white", "width": 1})
    written = max(given.shape) <= 12 if numbers is None else numbers
    if not (given.size and np.isfinite(given).all() and high > low):
        return figure  # the still drawing has no colour for what is no number
    names = {"queries": query_names, "keys": key_names}
    return figure.with_twin(
        lambda: matrix_image(given, **names, limits=(low, high), numbers=written, title=title or "")
    )


def profile_figure(
    profile: LayerProfile, *, index: int = 0, title: str | None = None, width: int = 860, dark: bool = False
) -> Figure:
    """Draw entropy, attention distance and prefix share over layers: a dot per head, a line for the mean.

    Parameters
    ----------
    profile : finished numbers, of :func:`attnlib.profiles.layer_profile`.
    index : which item of the batch.
    title : heading.
    width : of the figure in pixels.
    dark : light text on a dark ground.
    """
    parts = profile_parts(profile, index)
    figure = subplots(rows=1, cols=3, subplot_titles=[name for name, _, _ in parts])
    layers = list(profile.layers)
    for column, (name, values, even) in enumerate(parts, start=1):
        for place, head in enumerate(profile.heads):
            figure.add_trace(
                go.Scatter(
                    x=layers,
                    y=values[:, place],
                    mode="markers",
                    marker={"size": 6, "color": "#4477aa", "opacity": 0.55},
                    hovertemplate=f"layer %{{x}}, head {head}<br>%{{y:.3f}}<extra></extra>",
                    showlegend=False,
                    name=f"head {head}",
                ),
                row=1,
                col=column,
            )
        mean = go.Scatter(
            x=layers,
            y=values.mean(axis=1),
            mode="lines",
            line={"color": "#aa3377", "width": 2},
            hovertemplate="layer %{x}, mean of heads<br>%{y:.3f}<extra></extra>",
            showlegend=False,
            name=f"mean {name}",
        )
        figure.add_trace(mean, row=1, col=column)
        if even is not None:
            figure.add_hline(even, line={"color": FAINT, "dash": "dot"}, row=1, col=column)  # type: ignore[arg-type]
    figure.update_layout(look(dark=dark), width=width, height=330, title_text=title or "")
    figure.update_xaxes(title_text="layer", dtick=max(1, len(layers) // 6))
    figure.update_yaxes(rangemode="tozero")
    return figure


def profile_parts(
    profile: LayerProfile, index: int
) -> list[tuple[str, Float[np.ndarray, "layer head"], float | None]]:
    """Return (name, values, value of even attention) of the three parts of a profile."""
    entropy, distance, prefix = (
        part[index].double().numpy() for part in (profile.entropy, profile.distance, profile.prefix_share)
    )
    return [
        ("evenness (entropy / log N)", entropy, 1.0),
        ("attention distance (patches)", distance, profile.even_distance),
        ("share on prefix tokens", prefix, None),
    ]


def _limits(values: np.ndarray) -> tuple[float, float]:
    top = float(np.nanmax(np.abs(values))) or 1.0
    return (-top if bool((values < 0).any()) else 0.0), top


def _labels(given: Sequence[int] | None, count: int, what: str) -> list[int]:
    chosen = list(range(count)) if given is None else [int(i) for i in given]
    if len(chosen) != count:
        raise InputError(f"{len(chosen)} {what} were named for {count} maps")
    return chosen


def _names(given: Sequence[str] | None, layout: TokenLayout | None, count: int, what: str) -> list[str]:
    if given is None and layout is not None and layout.num_tokens == count:
        return [layout.label(i) for i in range(count)]
    chosen = [str(i) for i in range(count)] if given is None else [str(name) for name in given]
    if len(chosen) != count:
        raise InputError(f"{len(chosen)} {what} were named for a matrix with {count}")
    return chosen
