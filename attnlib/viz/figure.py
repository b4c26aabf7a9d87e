"""Figure: a plotly figure whose export as a picture says what it needs."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attnlib.errors import InputError, MissingPackageError
from attnlib.viz.drawn import Drawn

__all__ = ["Figure", "subplots"]


class Figure(go.Figure):
    """A plotly figure. Its export as PNG, SVG or PDF needs the extra ``export``, and a Chrome or Chromium.

    Where no script of plotly's runs, as in plain nbconvert without a network, :meth:`still` shows it.
    """

    _twin: Callable[[], Drawn] | None = None

    def with_twin(self, twin: Callable[[], Drawn]) -> Figure:
        """Return this figure with what draws the same numbers without a script."""
        self._twin = twin
        return self

    def still(self) -> Drawn:
        """Return the same numbers as a PIL picture, as they were given to the figure.

        Raises
        ------
        InputError
            If there is no such picture: overlays and attention matrices have one.
        """
        if self._twin is None:
            raise InputError(
                "this figure has no still picture; overlays of bands or lift, and matrices of finite numbers "
                'have one. figure.write_image("figure.png") needs the extra export'
            )
        return self._twin()

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
