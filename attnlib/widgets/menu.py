"""The explorer's controls: native inputs that carry their name, bound to the state both ways."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from attnlib.methods import METHODS
from attnlib.models import MODELS
from attnlib.picture import samples
from attnlib.widgets.bench import ATTENTION
from attnlib.widgets.chart import MEASURES, OF_PICTURES, OF_TEXTS
from attnlib.widgets.palettes import viewer_palettes
from attnlib.widgets.state import FOLDS, ExplorerState, read_query, read_token

__all__ = ["Menu"]

_STYLE = {"description_width": "initial"}


class Menu:
    """All controls of an explorer.

    Parameters
    ----------
    state : what the controls show and change.
    guard : wraps every reaction, so that errors are shown in place.
    """

    def __init__(
        self, state: ExplorerState, guard: Callable[[Callable[..., None]], Callable[..., None]]
    ) -> None:
        self.state = state
        self._guard = guard
        self._busy = threading.local()
        self._shown: dict[str, Any] = {}
        self.model = _combobox("model", state.model, sorted(MODELS))
        text = state.kind == "text"
        known = [] if text else [f"sample:{name}" for name in samples()]
        self.picture = _combobox("text" if text else "picture", state.picture, known)
        if text:
            self.picture.layout.width = "min(640px, 95%)"
        self.item = widgets.BoundedIntText(
            0, min=0, max=0, description="text number", style=_STYLE, layout={"width": "150px"}
        )
        self.upload = widgets.FileUpload(
            accept="image/*",
            multiple=False,
            description="Upload a picture",
            tooltip="upload a picture",
            layout={"width": "max-content"},
        )
        self.method = _dropdown("method", [ATTENTION, *METHODS], state.method)
        self.target = _combobox("target (for methods that need one)", _text(state.target), [])
        self.run = widgets.Button(
            description="Show", tooltip="capture and explain again", button_style="primary"
        )
        self.cancel = widgets.Button(description="Cancel", tooltip="stop as soon as possible", disabled=True)
        self.layer = widgets.BoundedIntText(
            state.layer, min=0, max=0, description="layer", style=_STYLE, layout={"width": "130px"}
        )
        self.layers = _dropdown("layers", FOLDS, state.layers)
        self.head = widgets.BoundedIntText(
            state.head, min=0, max=0, description="head", style=_STYLE, layout={"width": "130px"}
        )
        self.heads = _dropdown("fusion of heads", FOLDS, state.heads)
        self.query = widgets.Text(
            "",
            description="query token" if text else "query patch",
            placeholder="number" if text else "row, column",
            continuous_update=False,
            style=_STYLE,
        )
        self.direction = _dropdown(
            "direction", [("where it looks", "from"), ("who looks at it", "to")], state.direction
        )
        shown = [name for name in viewer_palettes() if name != "difference"]
        self.palette = _dropdown("palette", shown, state.palette)
        self.regions = widgets.Checkbox(state.show_regions, description="parts of the picture", indent=False)
        measures = OF_TEXTS if text else OF_PICTURES
        self.measure = _dropdown("chart", [(MEASURES[name], name) for name in measures], state.measure)
        self._bind()

    def boxes(self) -> tuple[widgets.Widget, widgets.Widget]:
        """Return the two rows of controls."""
        top = [self.model, self.picture, self.upload, self.method, self.target, self.run, self.cancel]
        rows = [self.layer, self.layers, self.head, self.heads, self.query, self.direction]
        rows += [self.palette, self.regions]
        if self.state.kind == "text":
            top[2] = self.item
            rows.remove(self.regions)
        flow = {"flex_flow": "row wrap", "align_items": "center"}
        return widgets.HBox(top, layout=flow), widgets.HBox(rows, layout=flow)

    def limit(self, layers: int, heads: int, texts: int = 1) -> None:
        """Set how many layers, heads and texts there are, without a reaction."""
        self._busy.on = True
        try:
            self.layer.max, self.head.max, self.item.max = layers - 1, heads - 1, texts - 1
        finally:
            self._busy.on = False
        self.item.layout.display = "" if texts > 1 else "none"

    def offer_targets(self, labels: tuple[str, ...]) -> None:
        """Offer the model's own labels as targets."""
        self.target.options = labels[:2000]

    def sync(self) -> None:
        """Show the state in the controls, without a reaction.

        What waits for the button (model, input, method, target) is only touched where the state itself
        has changed: what the hand has chosen there meanwhile stays.
        """
        self._busy.on = True
        try:
            state = self.state
            for name in ("layers", "heads", "direction", "palette", "measure"):
                getattr(self, name).value = getattr(state, name)
            waiting = {"model": state.model, "picture": state.picture, "target": _text(state.target)}
            if state.method in self.method.options:
                waiting["method"] = state.method
            for name, value in waiting.items():
                if self._shown.get(name) != value:
                    getattr(self, name).value = value
            self._shown.update(waiting)
            self.layer.value, self.head.value = state.layer, state.head
            self.regions.value = state.show_regions
            self.query.value, self.item.value = state.query_text(), state.item
        finally:
            self._busy.on = False

    def typed(self) -> Callable[[], None]:
        """Remember what waits for the button; calling the answer writes it there again."""
        words = {name: getattr(self, name).value for name in ("model", "picture", "method", "target")}

        def again() -> None:
            self._busy.on = True
            try:
                for name, value in words.items():
                    getattr(self, name).value = value
            finally:
                self._busy.on = False

        return again

    def _bind(self) -> None:
        plain = ("layers", "heads", "direction", "palette", "measure")
        for name in plain:
            self._on(getattr(self, name), lambda value, name=name: setattr(self.state, name, value))
        self._on(self.layer, lambda value: self.state.goto(value))
        self._on(self.head, self._choose_head)
        self._on(self.regions, lambda value: setattr(self.state, "show_regions", value))
        self._on(self.query, self._choose_query)
        self._on(self.item, lambda value: setattr(self.state, "item", value))

    def _on(self, control: widgets.Widget, react: Callable[[Any], None]) -> None:
        guarded = self._guard(react)

        def hear(change: Any) -> None:
            if not getattr(self._busy, "on", False):
                guarded(change["new"])

        control.observe(hear, names="value")

    def _choose_head(self, head: int) -> None:
        with self.state.hold_trait_notifications():
            self.state.head, self.state.heads = head, "one"

    def _choose_query(self, text: str) -> None:
        self.state.choose_query(read_token(text) if self.state.kind == "text" else read_query(text))


def _text(target: Any) -> str:
    return "" if target is None else str(target)


def _dropdown(name: str, options: Any, value: Any) -> widgets.Dropdown:
    return widgets.Dropdown(
        options=options, value=value, description=name, style=_STYLE, layout={"width": "max-content"}
    )


def _combobox(name: str, value: str, options: list[str]) -> widgets.Combobox:
    return widgets.Combobox(
        value=value, options=options, description=name, ensure_option=False, continuous_update=False,
        style=_STYLE, layout={"width": "320px"},
    )  # fmt: skip
