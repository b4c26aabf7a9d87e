"""ExplorerState: what is chosen, and nothing about how it is shown."""

from __future__ import annotations

from typing import Any

import traitlets

from attnlib.errors import InputError

__all__ = ["FOLDS", "ExplorerState", "checked_place", "read_head", "read_query", "read_target", "read_token"]

FOLDS = ("one", "mean", "max", "min")
"""How layers or heads are merged; "one" = the chosen one."""


class ExplorerState(traitlets.HasTraits):
    """Everything that is chosen in an explorer. Observe it, change it; widgets and charts follow.

    Parameters
    ----------
    model : name for ``load_model``.
    picture : name or path of the picture or text; what was given in memory is called by its name.
    method : a name in METHODS, or "attention" for the layers and heads themselves.
    options : options of the method.
    target : what the model's answer is explained for, for methods that need it; None = no target.
    layer, head : positions in the record.
    layers, heads : one of :data:`FOLDS`.
    kind : "picture" or "text": what the model reads.
    item : which of several texts is shown.
    query : a patch (row, column), a token of text, or None for the row the head reads.
    direction : "from" = where the query looks, "to" = who looks at it.
    shown : "method" = the map of the method, "attention" = that of the chosen layer and head.
    palette : a palette of the viewer.
    show_regions : whether outlines and shares of regions are shown.
    measure : which profile the chart shows.
    """

    model = traitlets.Unicode("")
    picture = traitlets.Unicode("")
    method = traitlets.Unicode("rollout")
    options = traitlets.Dict()
    target = traitlets.Any(None, allow_none=True)
    layer = traitlets.Int(0)
    layers = traitlets.Enum(FOLDS, "one")
    head = traitlets.Int(0)
    heads = traitlets.Enum(FOLDS, "mean")
    kind = traitlets.Enum(("picture", "text"), "picture")
    item = traitlets.Int(0)
    query = traitlets.Union(
        [traitlets.Tuple(traitlets.Int(), traitlets.Int()), traitlets.Int()],
        allow_none=True,
        default_value=None,
    )
    direction = traitlets.Enum(("from", "to"), "from")
    shown = traitlets.Enum(("method", "attention"), "method")
    palette = traitlets.Unicode("bands")
    show_regions = traitlets.Bool(True)
    measure = traitlets.Unicode("entropy")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        values = {name: getattr(self, name) for name in sorted(self.trait_names())}
        values["query"] = self._plain_query()
        values["target"] = (
            self.target if isinstance(self.target, (str, int, type(None))) else str(self.target)
        )
        return values

    def to_parameters(self) -> dict[str, Any]:
        """Return the parameters that make the notebooks and the report show the present view."""
        source = "sentence" if self.kind == "text" else "picture"
        parameters: dict[str, Any] = {"model": self.model, source: self.picture, "method": self.method}
        if self.target is not None:
            parameters["target"] = str(self.target)
        parameters["layer"] = self.layer
        parameters["head"] = str(self.head) if self.heads == "one" else self.heads
        if self.query is not None:
            parameters["query"] = self.query_text()
        usual = {"layers": "one", "direction": "from", "shown": "method", "palette": "bands", "options": {}}
        if self.method == "attention":  # there is nothing else to show
            del usual["shown"]
        for name, value in usual.items():
            if getattr(self, name) != value:
                parameters[name] = getattr(self, name)
        return parameters

    def query_text(self) -> str:
        """Return the query as it is typed: "row, column", the number of a token, or nothing."""
        if self.query is None:
            return ""
        return str(self.query) if isinstance(self.query, int) else f"{self.query[0]}, {self.query[1]}"

    def _plain_query(self) -> list[int] | int | None:
        return list(self.query) if isinstance(self.query, tuple) else self.query

    def selection(self) -> dict[str, Any]:
        """Return side A of the viewer's state."""
        return {
            "layer": self.layer,
            "layers": self.layers,
            "head": self.head,
            "heads": self.heads,
            "query": self._plain_query(),
            "direction": self.direction,
        }

    def take_selection(self, selection: dict[str, Any]) -> None:
        """Follow what was chosen in the viewer."""
        query = selection.get("query")
        with self.hold_trait_notifications():
            self.layer, self.head = int(selection["layer"]), int(selection["head"])
            self.layers, self.heads = selection["layers"], selection["heads"]
            self.direction = selection["direction"]
            if query is None or isinstance(query, int):
                self.choose_query(query)
            else:
                self.choose_query((int(query[0]), int(query[1])))

    def choose_query(self, query: tuple[int, int] | int | None) -> None:
        """Make a patch (row, column) or a token the query, or go back to what the head reads (None)."""
        self.set_trait("query", query if query is None or isinstance(query, int) else tuple(query))

    def goto(self, layer: int, head: int | None = None) -> None:
        """Go to a layer, and to one head of it or the mean over its heads."""
        if layer < 0:
            raise InputError(f"a layer position cannot be negative here, got {layer}")
        with self.hold_trait_notifications():
            self.layer, self.layers = layer, "one"
            if head is not None:
                self.head, self.heads = head, "one"


def read_query(given: Any) -> tuple[int, int] | None:
    """Return a patch from (row, column) or the text "row, column"; None from nothing.

    Raises
    ------
    InputError
        If it is no pair of whole numbers.
    """
    if given is None or (isinstance(given, str) and not given.strip()):
        return None
    parts = given.strip(" ()").split(",") if isinstance(given, str) else list(given)
    try:
        row, column = (int(part) for part in parts)
    except (TypeError, ValueError):
        raise InputError(f"a query patch is two whole numbers, row and column; got {given!r}") from None
    return row, column


def read_token(given: Any) -> int | None:
    """Return a token of text from a number, also as text; None from nothing.

    Raises
    ------
    InputError
        If it is no whole number of at least 0.
    """
    if given is None or (isinstance(given, str) and not given.strip()):
        return None
    if isinstance(given, int) and given >= 0:
        return given
    if isinstance(given, str) and given.strip().isdigit():
        return int(given)
    raise InputError(f"a query token is one whole number, counted from 0; got {given!r}")


def read_head(given: int | str) -> int | str:
    """Return a head as a number, also from text such as "3"; "mean", "max" and "min" stay words."""
    return int(given) if isinstance(given, str) and given.strip().lstrip("-").isdigit() else given


def read_target(text: Any) -> Any:
    """Return a target as ``capture`` takes it: nothing, an index, a label, or what was given."""
    if not isinstance(text, str):
        return text
    text = text.strip()
    if not text:
        return None
    return int(text) if text.lstrip("-").isdigit() else text


def checked_place(value: Any, count: int, what: str) -> int:
    """Return a position from 0 on; negative ones count from the end.

    Raises
    ------
    InputError
        If there is no such position.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not -count <= value < count:
        raise InputError(f"{what} {value!r} does not exist: there are {count}")
    return value % count
