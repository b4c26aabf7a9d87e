"""The static twin of the overlay: picture, map and legend as one PIL image, drawn without a browser."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Num, UInt8
from PIL import Image, ImageDraw, ImageFont

from attnlib.bands import Bands, band_map
from attnlib.errors import InputError
from attnlib.picture import Picture, load_picture
from attnlib.record import Relevance
from attnlib.viz.drawn import Drawn, drawn
from attnlib.viz.legend import facts, legend_rows
from attnlib.viz.marks import areas
from attnlib.viz.placing import Placement, place
from attnlib.viz.theme import DIVERGING, FAINT, INK, SEQUENTIAL, Palette, choose_palette, colour_map

__all__ = [
    "coloured",
    "laid_over",
    "map_image",
    "overlay_image",
    "picture_image",
    "plain",
    "still_font",
    "strip_image",
]

_LINE = 19
_CAPTION = 13
_COLUMN = 900
"""Pixels of the column of a page; a wider strip is shown smaller."""
_GAP = 14


def overlay_image(
    relevance: Relevance,
    picture: Any,
    *,
    index: int = 0,
    style: str = "bands",
    bands: Bands | None = None,
    palette: str = "bands",
    colours: str | None = None,
    limits: tuple[float | int, float | int] | None = None,
    opacity: float | int = 0.55,
    numbers: bool | None = None,
    grey: bool | None = None,
    legend: bool = True,
    longest: int = 720,
    title: str | None = None,
) -> Drawn:
    """Draw a map over its picture, with the legend beside it.

    Parameters
    ----------
    relevance, picture, index, style, bands, palette, colours, limits, opacity, numbers, grey : as for
        :func:`attnlib.overlay`; the continuous style shows lift.
    legend : put colours, cuts and numbers to the right.
    longest : longer side of the drawn picture in pixels.
    title : heading over the legend; method and query if omitted.

    Returns
    -------
    An RGB image that any viewer opens; ``.alt`` says in words what it shows.

    Raises
    ------
    InputError
        If the picture is not the one the map was made from, or an option is unknown.
    """
    shown = load_picture(picture)
    placement = place(relevance, shown, index)
    bands = band_map(relevance) if bands is None else bands
    colour_set = choose_palette(palette)
    canvas = picture_image(shown, longest=longest, grey=style == "bands" if grey is None else grey)
    if style == "bands":
        patches = colour_set.rgba(opacity)[bands.shades[index].cpu().numpy()]
    elif style == "continuous":
        lift = relevance.lift(without_identity=True)[index].detach().cpu().double().numpy()
        limits = limits or (0.0, float(lift.max()) or 1.0)
        patches = coloured(lift, limits, colours or SEQUENTIAL, opacity)
    else:
        raise InputError(f"style must be bands or continuous; got {style!r}")
    canvas = laid_over(canvas, patches, placement)
    if style == "bands" and (colour_set.numbered if numbers is None else numbers):
        _write_numbers(canvas, bands, placement, index)
    _outline_window(canvas, placement)
    lines = [*facts(relevance, bands, index), *placement.notes]
    if not placement.covers_all:
        lines.append("Outside the white frame the model saw nothing.")
    heading = title or f"{relevance.method}, seen from: {relevance.query}"
    rows = [f"{row.band}, {row.text}" for row in legend_rows(bands, colour_set, index)]
    alt = f"{heading}, over {shown.name}. {' '.join(lines[1:2] or lines)} {'; '.join(rows)}."
    if not legend:
        return drawn(canvas, alt)
    if style == "bands":
        return drawn(_with_band_legend(canvas, bands, colour_set, index, heading, lines), alt)
    assert limits is not None
    return drawn(_with_scale(canvas, limits, colours or SEQUENTIAL, opacity, heading, lines), alt)


def picture_image(picture: Picture, *, longest: int = 720, grey: bool = False) -> Drawn:
    """Return the picture in RGB at a readable size, enlarged or reduced to ``longest`` pixels."""
    height, width = picture.size
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = picture.to_pil().convert("L" if grey else "RGB").convert("RGB")
    return drawn(image.resize(size, Image.Resampling.LANCZOS), f"the picture {picture.name}")


def map_image(
    values: Float[np.ndarray, "row column"],
    *,
    limits: tuple[float | int, float | int],
    colours: str | None = None,
    size: tuple[int, int] | None = None,
) -> Image.Image:
    """Draw bare values in a colour map, one flat square per value.

    Parameters
    ----------
    values : what to draw.
    limits : (lowest, highest) value of the colour map; what lies outside has the colour of the end.
    colours : a colour map; diverging if ``limits`` has a negative lower end.
    size : (height, width) in pixels.
    """
    colours = colours or (DIVERGING if limits[0] < 0 else SEQUENTIAL)
    image = Image.fromarray(coloured(values, limits, colours, 1.0)[..., :3])
    if size is None:
        return image
    return image.resize((size[1], size[0]), Image.Resampling.NEAREST)


def strip_image(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    columns: int | None = None,
) -> Drawn:
    """Set images of one size in rows, each with a caption above it; ``.alt`` tells all of it in words.

    Parameters
    ----------
    images : what to set; all as large as the first.
    captions : one per image.
    columns : images per row; all in one row if omitted.

    Raises
    ------
    InputError
        If there is no image, or the captions are not as many.
    """
    if not images or len(images) != len(captions):
        raise InputError(
            f"a strip needs one caption per image: {len(images)} images, {len(captions)} captions"
        )
    columns = min(columns or len(images), len(images))
    width, height = images[0].size
    rows = -(-len(images) // columns)
    across = columns * (width + 6) - 6
    font, line = _caption_font(captions, across, width)
    sheet = Image.new("RGB", (across, rows * (height + line + 6)), "white")
    draw = ImageDraw.Draw(sheet)
    for place_, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(place_, columns)
        left, top = column * (width + 6), row * (height + line + 6)
        draw.text((left + 2, top + 2), plain(caption), fill=INK, font=font)
        sheet.paste(image, (left, top + line))
    words = [getattr(image, "alt", "") for image in images]
    told = [
        (alt if alt.startswith(str(caption)) else f"{caption}: {alt}").removesuffix(".")
        if alt
        else str(caption)
        for caption, alt in zip(captions, words, strict=True)
    ]
    return drawn(sheet, f"{len(images)} pictures. {'. '.join(told)}.")


def _caption_font(
    captions: Sequence[str], across: int, width: int
) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, int]:
    """Return the font of captions that can still be read when a page narrows the strip; and its line."""
    size = max(_CAPTION, round(_CAPTION * across / _COLUMN))
    widest = max(still_font(_CAPTION).getlength(plain(caption)) for caption in captions)
    size = max(_CAPTION, min(size, int(_CAPTION * (width - 4) / max(widest, 1))))
    return still_font(size), round(_LINE * size / _CAPTION)


def coloured(
    values: Float[np.ndarray, "row column"],
    limits: tuple[float | int, float | int],
    colours: str,
    opacity: float | int,
) -> UInt8[np.ndarray, "row column 4"]:
    """Return the colour of each value, RGBA; what lies outside the limits has the colour of the end."""
    low, high = limits
    if not high > low:
        raise InputError(f"limits must be (lowest, highest), got {limits!r}")
    level = np.clip((values - low) / (high - low), 0, 1)
    table = colour_map(colours)[np.round(level * 255).astype(int)]
    alpha = np.full((*values.shape, 1), round(255 * opacity), dtype=np.uint8)
    return np.concatenate([table, alpha], axis=-1)


def laid_over(
    canvas: Image.Image, patches: Num[np.ndarray, "row column 4"], place_: Placement
) -> Image.Image:
    """Lay the colour of each patch over a drawn picture; what the model did not see stays as it is."""
    spread = place_.spread(patches, (canvas.height, canvas.width))
    layer = Image.fromarray(spread.astype(np.uint8), "RGBA")
    return Image.alpha_composite(canvas.convert("RGBA"), layer).convert("RGB")


def _write_numbers(canvas: Image.Image, bands: Bands, placement: Placement, index: int) -> None:
    draw = ImageDraw.Draw(canvas)
    x, y = placement.centres()
    across, down = canvas.width / placement.picture_size[1], canvas.height / placement.picture_size[0]
    for row, column, shade in areas(bands.shades[index].cpu().numpy()):
        draw.text(
            (x[column] * across, y[row] * down),
            str(shade),
            fill="white",
            font=still_font(14),
            anchor="mm",
            stroke_width=2,
            stroke_fill="black",
        )


def _outline_window(canvas: Image.Image, placement: Placement) -> None:
    if placement.covers_all:
        return
    left, top, right, bottom = placement.window
    across, down = canvas.width / placement.picture_size[1], canvas.height / placement.picture_size[0]
    box = (
        max(left * across, 0),
        max(top * down, 0),
        min(right * across, canvas.width) - 1,
        min(bottom * down, canvas.height) - 1,
    )
    draw = ImageDraw.Draw(canvas)
    draw.rectangle(box, outline="black", width=4)
    draw.rectangle(box, outline="white", width=2)


def _with_band_legend(
    canvas: Image.Image, bands: Bands, colours: Palette, index: int, heading: str, lines: Sequence[str]
) -> Image.Image:
    rows = legend_rows(bands, colours, index)
    sheet, draw, left, top = _sheet(canvas, heading, lines, room=len(rows) * 2.2)
    for row in rows:
        box = (left, top + 2, left + 26, top + 28)
        draw.rectangle(box, fill=row.colour, outline=FAINT)
        if colours.numbered:
            ink = INK if row.shade in (0, 2, 3) else "white"
            draw.text((left + 13, top + 15), str(row.shade), fill=ink, font=still_font(14), anchor="mm")
        first, second = row.text.split(": ", 1)
        draw.text((left + 36, top), f"{row.band}: {first}", fill=INK, font=still_font(14))
        draw.text((left + 36, top + 17), second, fill=FAINT, font=still_font(13))
        top += int(_LINE * 2.2)
    _write_lines(draw, left, top + _GAP, lines)
    return sheet


def _with_scale(
    canvas: Image.Image,
    limits: tuple[float | int, float | int],
    colours: str,
    opacity: float | int,
    heading: str,
    lines: Sequence[str],
) -> Image.Image:
    sheet, draw, left, top = _sheet(canvas, heading, lines, room=4)
    ramp = np.linspace(*limits, 240)[None, :]
    sheet.paste(map_image(ramp, limits=limits, colours=colours, size=(22, 240)), (left, top + 20))
    draw.text((left, top), "lift (multiples of the even share)", fill=INK, font=still_font(14))
    draw.text((left, top + 44), f"{limits[0]:.3g}", fill=FAINT, font=still_font(13))
    draw.text((left + 240, top + 44), f"{limits[1]:.3g}", fill=FAINT, font=still_font(13), anchor="ra")
    if opacity < 1:
        lines = [f"Drawn at {100 * opacity:.0f} % opacity over the picture.", *lines]
    _write_lines(draw, left, top + 4 * _LINE, lines)
    return sheet


def _sheet(
    canvas: Image.Image, heading: str, lines: Sequence[str], *, room: float
) -> tuple[Image.Image, ImageDraw.ImageDraw, int, int]:
    """Return a white sheet with the picture at the left and the heading written at the right."""
    folded = sum(len(_folded(line)) for line in lines)
    height = int(max(canvas.height, (room + folded + 4) * _LINE + 2 * _GAP))
    sheet = Image.new("RGB", (canvas.width + 350, height), "white")
    sheet.paste(canvas, (0, 0))
    draw = ImageDraw.Draw(sheet)
    left, top = canvas.width + _GAP, 6
    for line in _folded(heading, 38):
        draw.text((left, top), line, fill=INK, font=still_font(16))
        top += 22
    return sheet, draw, left, top + 8


def _write_lines(draw: ImageDraw.ImageDraw, left: int, top: int, lines: Sequence[str]) -> None:
    for line in lines:
        for part in _folded(line):
            draw.text((left, top), part, fill=INK, font=still_font(13))
            top += _LINE


def _folded(text: str, width: int = 46) -> list[str]:
    return textwrap.wrap(plain(text), width) or [""]


def plain(text: str) -> str:
    """Return text that PIL's own font can draw."""
    return text.encode("ascii", "replace").decode()


@cache
def still_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return PIL's own font."""
    return ImageFont.load_default(size)
