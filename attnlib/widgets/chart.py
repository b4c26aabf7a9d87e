"""Charts over layers and heads in which choosing a bar goes there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import anywidget
import numpy as np
import plotly.graph_objects as go
import traitlets
from jaxtyping import Float
from plotly.subplots import make_subplots

from attnlib.viz.theme import CONFIG, look
from attnlib.widgets.state import ExplorerState

__all__ = ["MEASURES", "OF_PICTURES", "OF_TEXTS", "BarChart", "profile_bars", "show_profile"]

MEASURES: Mapping[str, str] = {
    "entropy": "entropy / log N",
    "distance": "attention distance (patches)",
    "prefix_share": "share on prefix tokens",
    "artifact_share": "share on artifact patches",
    "token_distance": "attention distance (tokens)",
    "token_before": "share on the token before",
    "separators": "share on separators",
    "same_word": "share on the same word elsewhere",
}
"""What a chart can show, with its axis label."""
OF_PICTURES = ("entropy", "distance", "prefix_share", "artifact_share")
OF_TEXTS = ("entropy", "token_distance", "token_before", "separators", "same_word")
_PLAIN, _CHOSEN = "#4477aa", "#aa3377"


class BarChart(anywidget.AnyWidget):
    """A plotly chart whose bars can be chosen by mouse and keyboard."""

    _esm = (files("attnlib.widgets") / "js" / "chart.js").read_text(encoding="utf-8")
    _css = (files("attnlib.widgets") / "js" / "chart.css").read_text(encoding="utf-8")
    figure = traitlets.Dict().tag(sync=True)
    bars = traitlets.List().tag(sync=True)
    words = traitlets.Unicode("").tag(sync=True)
    config = traitlets.Dict(dict(CONFIG)).tag(sync=True)
    chosen = traitlets.Dict().tag(sync=True)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.on_msg(self._hear)

    def show(self, figure: go.Figure, *, words: str) -> None:
        """Show a figure whose bars carry ``customdata`` (layer position, head position or None)."""
        content = json.loads(figure.to_json() or "{}")
        content["layout"].pop("template", None)
        traces: Any = figure.data
        with self.hold_sync():
            self.bars = [
                {"layer": place[0], "head": place[1], "words": f"{x}: {y:.3g}"}
                for trace in traces
                for x, y, place in zip(trace.x, trace.y, trace.customdata, strict=True)
            ]
            self.words = words
            self.figure = content

    def on_choice(self, react: Callable[[int, int | None], None]) -> None:
        """Call ``react(layer, head)`` with positions when a bar is chosen; head None = all heads."""

        def hear(change: Any) -> None:
            if change["new"]:
                react(int(change["new"]["layer"]), change["new"].get("head"))

        self.observe(hear, names="chosen")

    def _hear(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        del buffers
        if content.get("need") == "plotly":
            from plotly.offline import get_plotlyjs

            self.send({"give": "plotly"}, buffers=[get_plotlyjs().encode()])


def show_profile(
    chart: BarChart, measures: Mapping[str, np.ndarray], profile: Any, state: ExplorerState
) -> None:
    """Draw the chosen measure of all layers and heads, or say that it is not known."""
    values = measures.get(state.measure)
    if values is None:
        chart.words = f"{MEASURES[state.measure]} is not known for this model"
        return
    layer = min(state.layer, len(profile.layers) - 1)
    head = state.head if state.heads == "one" else None
    figure = profile_bars(values, profile, measure=state.measure, layer=layer, head=head)
    best = np.unravel_index(int(np.argmax(values)), values.shape)
    highest = f"highest at layer {profile.layers[best[0]]}, head {profile.heads[best[1]]}"
    chart.show(figure, words=f"{MEASURES[state.measure]} of every layer and head; {highest}")


def profile_bars(
    values: Float[np.ndarray, "layer head"],
    profile: Any,
    *,
    measure: str = "entropy",
    layer: int = 0,
    head: int | None = None,
) -> go.Figure:
    """Draw one measure: a bar per layer (mean over its heads), and a bar per head of one layer.

    Parameters
    ----------
    values : the measure.
    profile : whose ``layers`` and ``heads`` these are.
    measure : a key of :data:`MEASURES`, for the axis label.
    layer, head : positions that are marked as chosen.
    """
    figure = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        subplot_titles=["mean over heads, per layer", f"heads of layer {profile.layers[layer]}"],
    )
    layers, heads = range(len(profile.layers)), range(len(profile.heads))
    figure.add_bar(
        x=[f"layer {profile.layers[i]}" for i in layers],
        y=values.mean(axis=1),
        customdata=[(i, None) for i in layers],
        marker=_marker(list(layers), layer),
        hovertemplate="%{x}, mean over heads: %{y:.3f}<extra></extra>",
        row=1,
        col=1,
    )
    figure.add_bar(
        x=[f"head {profile.heads[i]}" for i in heads],
        y=values[layer],
        customdata=[(layer, i) for i in heads],
        marker=_marker(list(heads), head),
        hovertemplate="%{x}: %{y:.3f}<extra></extra>",
        row=1,
        col=2,
    )
    figure.update_layout(look(), showlegend=False, height=300)
    figure.update_layout(margin={"l": 56, "r": 16, "t": 40, "b": 56})
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text=MEASURES[measure], row=1, col=1)
    return figure


def _marker(bars: list[int], chosen: int | None) -> dict[str, Any]:
    """Mark the chosen bar by colour and by hatching."""
    return {
        "color": [_CHOSEN if i == chosen else _PLAIN for i in bars],
        "pattern": {"shape": ["/" if i == chosen else "" for i in bars], "fgcolor": "white"},
    }
