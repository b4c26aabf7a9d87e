"""Figure: a plotly figure whose export as a picture says what it needs."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnlib.errors import MissingPackageError
from attnlib.viz.drawn import Drawn

__all__ = ["Figure", "subplots"]


class Figure(go.Figure):
    """A plotly figure. Its export as PNG, SVG or PDF needs the extra ``export``, and a Chrome or Chromium.

    Where it has a static twin, a notebook shows and saves both: what cannot run plotly's script (plain
    nbconvert without a network, an untrusted notebook) draws the twin.
    """

    _twin: Callable[[], Drawn] | None = None

    def with_twin(self, twin: Callable[[], Drawn]) -> Figure:
        """Return this figure with what draws the same numbers without a script."""
        self._twin = twin
        return self

    def _ipython_display_(self) -> None:
        import plotly.io as pio

        bundle = {}
        if self._twin is not None and pio.renderers.render_on_display and pio.renderers.default:
            bundle = self._repr_mimebundle_()
        if not bundle or self._twin is None:  # a renderer that opens a window of its own
            super()._ipython_display_()
            return
        from IPython.display import display

        twin, about = self._twin()._repr_mimebundle_()
        display({**twin, **bundle}, metadata=about, raw=True)

    def to_image(self, *args: Any, **kwargs: Any) -> bytes:
        """Return the figure as a picture, as plotly does.

        Raises
        ------
        MissingPackageError
            If kaleido, which draws it, is not installed.
        """
        _need_kaleido()
        return super().to_image(*args, **kwargs)

    def write_image(self, *args: Any, **kwargs: Any) -> None:
        """Write the figure to a picture file, as plotly does.

        Raises
        ------
        MissingPackageError
            If kaleido, which draws it, is not installed.
        """
        _need_kaleido()
        super().write_image(*args, **kwargs)


def subplots(**options: Any) -> Figure:
    """Return a figure with the axes of plotly's ``make_subplots``."""
    figure = Figure()
    make_subplots(figure=figure, **options)
    return figure


def _need_kaleido() -> None:
    if find_spec("kaleido") is None:
        raise MissingPackageError(
            'a plotly figure as a picture needs kaleido: pip install "attnlib[export]" (and a Chrome or '
            "Chromium). Without it: attnlib.viz.overlay_image(relevance, picture).save('map.png'), or "
            "figure.write_html('map.html')"
        )
