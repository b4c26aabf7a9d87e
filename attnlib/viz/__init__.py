"""Figures: finished values in, a figure out; nothing is normalised, shown or saved here."""

from attnlib.viz.comparing import comparison_figure as comparison_figure
from attnlib.viz.comparing import maps_figure as maps_figure
from attnlib.viz.grids import attention_matrix as attention_matrix
from attnlib.viz.grids import layers_and_heads as layers_and_heads
from attnlib.viz.grids import profile_figure as profile_figure
from attnlib.viz.legend import facts as facts
from attnlib.viz.legend import legend_rows as legend_rows
from attnlib.viz.overlay import overlay as overlay
from attnlib.viz.scores import score_figure as score_figure
from attnlib.viz.static import map_image as map_image
from attnlib.viz.static import overlay_image as overlay_image
from attnlib.viz.static import picture_image as picture_image
from attnlib.viz.static import strip_image as strip_image
from attnlib.viz.svg import profile_svg as profile_svg
from attnlib.viz.theme import COLOUR_MAPS as COLOUR_MAPS
from attnlib.viz.theme import PALETTES as PALETTES

__all__ = [
    "COLOUR_MAPS",
    "PALETTES",
    "attention_matrix",
    "comparison_figure",
    "facts",
    "layers_and_heads",
    "legend_rows",
    "map_image",
    "maps_figure",
    "overlay",
    "overlay_image",
    "picture_image",
    "profile_figure",
    "profile_svg",
    "score_figure",
    "strip_image",
]
