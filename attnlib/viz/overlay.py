"""The overlay: a map laid over its picture, as a plotly figure."""

from __future__ import annotations

import base64
import io
import textwrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from PIL import Image

from attnlib.bands import Bands, band_map, percent
from attnlib.errors import InputError
from attnlib.picture import Picture, load_picture
from attnlib.record import Relevance
from attnlib.viz.figure import Figure
from attnlib.viz.legend import LegendRow, facts, legend_rows
from attnlib.viz.marks import areas
from attnlib.viz.placing import Placement, place
from attnlib.viz.static import overlay_image
from attnlib.viz.theme import DIVERGING, FAINT, SEQUENTIAL, Palette, choose_palette, colour_scale, look

__all__ = ["STYLES", "VALUES", "overlay"]

STYLES = ("bands", "continuous")
"""How a map can be drawn: in four bands with absolute cuts, or in a continuous colour map."""
VALUES = {"lift": "lift (multiples of the even share)", "share": "share of mass", "score": "score"}
"""What a continuous overlay can show."""

_LONGEST = 1024


def overlay(
    relevance: Relevance,
    picture: Any,
    *,
    index: int = 0,
    style: str = "bands",
    bands: Bands | None = None,
    values: str = "lift",
    limits: tuple[float | int, float | int] | None = None,
    palette: str = "bands",
    colours: str | None = None,
    opacity: float | int = 0.55,
    numbers: bool | None = None,
    grey: bool | None = None,
    title: str | None = None,
    width: int = 900,
    dark: bool = False,
) -> Figure:
    """Draw a map over the picture it belongs to.

    The map stands where the model looked: the patch grid covers the part of the original picture that
    the model input showed; what it did not see is outlined.

    Parameters
    ----------
    relevance : one map per item.
    picture : the picture itself: path, bytes, PIL image, array or Picture.
    index : which item of the batch.
    style : "bands" or "continuous".
    bands : finished bands, to draw other cuts or another scale; :func:`attnlib.band_map` if omitted.
    values : for "continuous": "lift" or "share" (what stands there only because the method starts from
        the query itself is set aside, as for bands), or "score" (as the method gives it, signs kept).
    limits : for "continuous": (lowest, highest) value of the colour map; the values' own range (from 0,
        or symmetric around 0 if signed) if omitted. Give the same limits to figures that are compared.
    palette : for "bands": "bands" or "colour-blind".
    colours : for "continuous": a colour map; viridis, or a diverging one for signed scores.
    opacity : of the map over the picture, 0 to 1.
    numbers : write the number of its shade into each area; the palette's choice if omitted.
    grey : show the picture in grey, so that every colour belongs to the map; the default for bands.
    title : heading; method and query if omitted.
    width : of the figure in pixels.
    dark : light text on a dark ground.

    Returns
    -------
    A figure; the first trace holds the map (shades 0..4, or the values), unchanged, in pixels of the
    picture.

    Raises
    ------
    InputError
        If the picture is not the one the map was made from, or an option is unknown.
    """
    if style not in STYLES:
        raise InputError(f"style must be one of {', '.join(STYLES)}; got {style!r}")
    shown = load_picture(picture)
    placement = place(relevance, shown, index)
    bands = band_map(relevance) if bands is None else bands
    colour_set = choose_palette(palette)
    figure = Figure()
    if style == "bands":
        figure.add_trace(_shades(relevance, bands, placement, colour_set, index, opacity))
        _add_legend(figure, bands, colour_set, index)
        if colour_set.numbered if numbers is None else numbers:
            _add_numbers(figure, bands.shades[index].cpu().numpy(), placement)
    else:
        drawn = _values(relevance, values, index)
        figure.add_trace(_continuous(relevance, drawn, values, placement, index, limits, colours, opacity))
    _add_picture(figure, shown, grey=style == "bands" if grey is None else grey)
    _add_window(figure, placement)
    _finish(figure, relevance, bands, shown, placement, index, title, width, dark)
    if style == "continuous" and values != "lift":
        return figure  # the static drawing knows lift only
    still: dict[str, Any] = {"style": style, "palette": palette, "colours": colours, "limits": limits}
    still |= {"bands": bands, "numbers": numbers, "grey": grey, "title": title, "index": index}
    return figure.with_twin(lambda: overlay_image(relevance, shown, longest=520, opacity=opacity, **still))


def _values(relevance: Relevance, values: str, index: int) -> Float[np.ndarray, "row column"]:
    if values not in VALUES:
        raise InputError(f"values must be one of {', '.join(VALUES)}; got {values!r}")
    if values == "score":
        drawn = relevance.heatmap()
    elif values == "share":
        drawn = relevance.share(without_identity=True)
    else:
        drawn = relevance.lift(without_identity=True)
    return drawn[index].detach().cpu().numpy()


def _hover(relevance: Relevance, index: int) -> tuple[Float[np.ndarray, "row column 3"], str]:
    lift, share = relevance.lift(without_identity=True), relevance.share(without_identity=True)
    maps = (lift[index], share[index] * 100, relevance.heatmap()[index])
    told = np.stack([one.detach().cpu().double().numpy() for one in maps], axis=-1)
    text = (
        "lift %{customdata[0]:.2f}x<br>share %{customdata[1]:.3f} %<br>score %{customdata[2]:.4g}"
        "<extra></extra>"
    )
    return told, text


def _lattice(placement: Placement) -> dict[str, float]:
    x, y = placement.centres()
    height, width = placement.patch
    return {"x0": float(x[0]), "dx": width, "y0": float(y[0]), "dy": height}


def _shades(
    relevance: Relevance,
    bands: Bands,
    placement: Placement,
    colours: Palette,
    index: int,
    opacity: float | int,
) -> go.Heatmap:
    told, text = _hover(relevance, index)
    steps = []
    for shade, (red, green, blue, alpha) in enumerate(colours.rgba(opacity).tolist()):
        colour = f"rgba({red},{green},{blue},{alpha / 255:.3f})"
        steps += [(shade / 5, colour), ((shade + 1) / 5, colour)]
    return go.Heatmap(
        z=bands.shades[index].cpu().numpy(),
        customdata=told,
        hovertemplate=text,
        colorscale=steps,
        zmin=-0.5,
        zmax=4.5,
        showscale=False,
        name="bands",
        **_lattice(placement),
    )


def _continuous(
    relevance: Relevance,
    drawn: Float[np.ndarray, "row column"],
    values: str,
    placement: Placement,
    index: int,
    limits: tuple[float | int, float | int] | None,
    colours: str | None,
    opacity: float | int,
) -> go.Heatmap:
    signed = bool((drawn < 0).any())
    if limits is None:
        top = float(np.abs(drawn).max()) or 1.0
        limits = (-top if signed else 0.0, top)
    told, text = _hover(relevance, index)
    return go.Heatmap(
        z=drawn,
        customdata=told,
        hovertemplate=text,
        colorscale=colour_scale(colours or (DIVERGING if signed else SEQUENTIAL)),
        zmin=limits[0],
        zmax=limits[1],
        opacity=opacity,
        colorbar={"title": {"text": VALUES[values]}, "thickness": 14},
        name=values,
        **_lattice(placement),
    )


def _add_legend(figure: Figure, bands: Bands, colours: Palette, index: int) -> None:
    for row in legend_rows(bands, colours, index):
        mark = {"symbol": "square", "size": 14, "line": {"width": 1, "color": FAINT}}
        mark["color"] = row.colour or "rgba(0,0,0,0)"
        number = f"{row.shade} " if colours.numbered else ""
        figure.add_trace(
            go.Scatter(
                x=[None], y=[None], mode="markers", marker=mark, hoverinfo="skip", name=number + _short(row)
            )
        )


def _short(row: LegendRow) -> str:
    shares = f"{percent(row.mass)} of mass, {percent(row.area)} of area"
    return f"<b>{row.word}</b>: {row.range}<br>{row.band}; {shares}"


def _add_numbers(figure: Figure, shades: Int[np.ndarray, "row column"], placement: Placement) -> None:
    x, y = placement.centres()
    found = areas(shades)
    figure.add_trace(
        go.Scatter(
            x=[x[column] for _, column, _ in found],
            y=[y[row] for row, _, _ in found],
            text=[str(shade) for _, _, shade in found],
            mode="text",
            textfont={"color": "white", "size": 13, "shadow": "0 0 3px black, 0 0 3px black"},
            hoverinfo="skip",
            showlegend=False,
            name="numbers",
        )
    )


def _add_picture(figure: Figure, picture: Picture, *, grey: bool) -> None:
    height, width = picture.size
    image = picture.to_pil().convert("L" if grey else "RGB")
    image.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    figure.add_layout_image(
        source=source,
        xref="x",
        yref="y",
        x=0,
        y=0,
        sizex=width,
        sizey=height,
        sizing="stretch",
        layer="below",
    )


def _add_window(figure: Figure, placement: Placement) -> None:
    if placement.covers_all:
        return
    left, top, right, bottom = placement.window
    height, width = placement.picture_size
    figure.add_shape(
        type="rect",
        x0=max(left, 0),
        x1=min(right, width),
        y0=max(top, 0),
        y1=min(bottom, height),
        line={"color": "white", "width": 2, "dash": "dash"},
    )


def _finish(
    figure: Figure,
    relevance: Relevance,
    bands: Bands,
    picture: Picture,
    placement: Placement,
    index: int,
    title: str | None,
    width: int,
    dark: bool,
) -> None:
    height, picture_width = picture.size
    figure.update_layout(look(dark=dark))
    lines = list(facts(relevance, bands, index))
    if not placement.covers_all:
        lines.append("Outside the dashed frame the model saw nothing.")
    lines = [part for line in [*lines, *placement.notes] for part in textwrap.wrap(line, width // 8)]
    room = 350
    drawn = (width - room) * height / picture_width
    figure.update_layout(
        width=width,
        height=int(min(max(drawn, 180), 900)) + 110 + 19 * len(lines),
        margin={"l": 12, "r": room, "t": 56, "b": 20 + 19 * len(lines)},
        legend={"x": 1.02, "y": 1, "itemclick": False, "itemdoubleclick": False, "tracegroupgap": 0},
    )
    figure.update_layout(title_text=title or f"{relevance.method}, seen from: {relevance.query}")
    figure.update_xaxes(visible=False, range=[0, picture_width], constrain="domain")
    figure.update_yaxes(
        visible=False, range=[height, 0], scaleanchor="x", constrain="domain", constraintoward="top"
    )
    figure.add_annotation(
        text="<br>".join(_escaped(line) for line in lines),
        xref="paper",
        yref="paper",
        x=0,
        y=0,
        yshift=-8,
        yanchor="top",
        align="left",
        showarrow=False,
        font={"size": 12},
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
