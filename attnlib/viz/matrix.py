"""The static twin of one attention matrix: cells, names and numbers as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from attnlib.viz.drawn import Drawn, drawn
from attnlib.viz.static import map_image, plain, still_font
from attnlib.viz.theme import FAINT, INK

__all__ = ["matrix_image"]

_NAMED = 40
_ROOM = 110
_TOP = 30


def matrix_image(
    values: Float[np.ndarray, "query key"],
    *,
    queries: Sequence[str],
    keys: Sequence[str],
    limits: tuple[float | int, float | int],
    numbers: bool = False,
    title: str = "",
) -> Drawn:
    """Draw one attention matrix, each row a query (receives), each column a key (gives).

    Parameters
    ----------
    values : what to draw.
    queries, keys : names of the rows and columns; written for up to 40 of each.
    limits : (lowest, highest) value of the colour map.
    numbers : write the value into each cell.
    title : heading.
    """
    down, across = values.shape
    named = max(down, across) <= _NAMED
    cell = max(1, min(40, 480 // max(down, across)))
    left, top = (_ROOM, _TOP + _ROOM) if named else (24, _TOP + 24)
    cells = map_image(values, limits=limits, size=(down * cell, across * cell))
    ramp = map_image(np.linspace(*limits, 100)[None, :], limits=limits, size=(12, 100))
    sheet = Image.new("RGB", (max(left + cells.width + 20, left + 420), top + cells.height + 40), "white")
    sheet.paste(cells, (left, top))
    pen = ImageDraw.Draw(sheet)
    pen.text((6, 6), plain(title), INK, still_font(15))
    if named:
        aside = Image.new("RGB", (_ROOM, cells.width), "white")
        upright = ImageDraw.Draw(aside)
        for i, name in enumerate(queries):
            pen.text((left - 5, top + (i + 0.5) * cell), plain(name)[:14], INK, still_font(12), anchor="rm")
        for i, name in enumerate(keys):
            upright.text((5, (i + 0.5) * cell), plain(name)[:14], INK, still_font(12), anchor="lm")
        sheet.paste(aside.rotate(90, expand=True), (left, _TOP))
    if numbers and cell >= 30:
        for (row, column), value in np.ndenumerate(values):
            at = left + (column + 0.5) * cell, top + (row + 0.5) * cell
            ink = {"fill": "white", "stroke_width": 2, "stroke_fill": "black"}  # seen on every colour
            pen.text(at, f"{value:.2f}", font=still_font(11), anchor="mm", **ink)
    foot = top + cells.height + 12
    sheet.paste(ramp, (left + 34, foot))
    pen.text((left + 28, foot + 6), f"{limits[0]:.2g}", FAINT, still_font(12), anchor="rm")
    told = f"{limits[1]:.2g}   row: query (receives), column: key (gives)"
    pen.text((left + 140, foot + 6), told, FAINT, still_font(12), anchor="lm")
    row, column = (int(i) for i in np.unravel_index(int(np.argmax(np.abs(values))), values.shape))
    most = f"strongest: {queries[row]} looks at {keys[column]}, {values[row, column]:.2f}"
    return drawn(sheet, f"{title or 'Attention'}: matrix of {down} queries and {across} keys; {most}.")
