"""The viewer with a kernel behind it: the same module through anywidget."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from attnlib.errors import AttnlibError
from attnlib.widgets.answering import patch_answer, text_answer
from attnlib.widgets.fragment import module_source, style_source
from attnlib.widgets.state import checked_place

if TYPE_CHECKING:
    from attnlib.widgets.viewing import Viewer

__all__ = ["LiveViewer"]


class LiveViewer(anywidget.AnyWidget):
    """A viewer whose selection Python can read and set, and that asks the kernel for exact maps.

    ``state`` is the viewer's whole state: ``state["a"]`` and ``state["b"]`` are the selections of the
    two sides. Callbacks run on another thread in JupyterLab, so the work behind them is locked.
    """

    _esm = module_source() + "\nexport default { render };\n"
    _css = style_source() + (files("attnlib.widgets") / "js" / "explorer.css").read_text(encoding="utf-8")
    document = traitlets.Dict().tag(sync=True)
    blob = traitlets.Bytes().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self._shown: Viewer | None = None
        self._lock = threading.Lock()
        self._on_picture: Callable[[bytes], None] | None = None
        self.on_msg(self._hear)

    @classmethod
    def from_viewer(cls, viewer: Viewer) -> LiveViewer:
        """Make a live viewer of a packed one."""
        live = cls(document={**viewer.document, "kernel": True}, blob=viewer.blob, state=viewer.state)
        live._shown = viewer
        return live

    @property
    def packed(self) -> Viewer | None:
        """What is shown, as a packed viewer without a kernel."""
        return self._shown

    def show(self, viewer: Viewer, *, state: dict[str, Any] | None = None) -> None:
        """Show another packed viewer in the same place; ``state`` keeps a look and a selection."""
        with self._lock:
            self._shown = viewer
        with self.hold_sync():
            self.blob = viewer.blob
            self.state = viewer.state if state is None else state
            self.document = {**viewer.document, "kernel": True}

    def choose(self, **change: Any) -> None:
        """Change the selection of side A: source, layer, layers, head, heads, row, query, direction, map ...

        Raises
        ------
        InputError
            If there is no such source, layer, head or map. Negative positions count from the end; where a
            layer has fewer heads than the one before, the last of them is shown.
        """
        now = {**self.state.get("a", {}), **change}
        sources = self.document["sources"]
        now["source"] = checked_place(now.get("source", 0), len(sources), "source")
        spec = sources[now["source"]]
        now["layer"] = checked_place(now.get("layer", 0), len(spec["layers"]), "layer")
        heads = min(len(one["heads"]) for one in spec["layers"])
        if now.get("layers", "one") == "one":
            heads = len(spec["layers"][now["layer"]]["heads"])
        if "layer" in change or "head" not in change or now.get("heads") != "one":
            now["head"] = min(now.get("head", 0), heads - 1)
        now["head"] = checked_place(now["head"], heads, "head")
        now["map"] = checked_place(now.get("map", 0), len(spec.get("maps", ())) + 1, "map")
        self.state = {**self.state, "a": now}

    def watch(self, react: Callable[[dict[str, Any]], None]) -> None:
        """Call ``react`` with the new state after every change."""
        self.observe(lambda change: react(change["new"]), names="state")

    def on_picture(self, react: Callable[[bytes], None]) -> None:
        """Call ``react`` with the bytes of a picture that was pasted into the viewer."""
        self._on_picture = react

    def _hear(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        if "picture" in content and self._on_picture is not None and buffers:
            self._on_picture(bytes(buffers[0]))
        if "ask" not in content:
            return
        try:
            arrays, prefix = self.answer(int(content["source"]), content["request"])
        except Exception as error:  # a question without an answer would be waited for without end
            self.send({"answer": content["ask"], "error": f"the kernel could not answer: {error}"})
            return
        answer = {"answer": content["ask"], "prefix": prefix}
        self.send(answer, buffers=[array.tobytes() for array in arrays])

    def answer(self, source: int, request: dict[str, Any]) -> tuple[list[Any], float | None]:
        """Compute what the page asks for: exact numbers of one selection."""
        with self._lock:
            viewer = self._shown
            if viewer is None or not 0 <= source < len(viewer.records):
                raise AttnlibError("the kernel holds no record for this viewer")
            record, item, part = viewer.records[source]
            spec = viewer.document["sources"][source]
            if spec["kind"] == "image":
                return patch_answer(record, request, part=part, item=item)
            if part is None:
                raise AttnlibError("the kernel does not know which text this is")
            pages = spec["query_pages"], spec["key_pages"]
            return text_answer(record, part, request, *pages, item=item)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        if self._shown is not None:
            # a saved notebook, an export and an untrusted one have no kernel: they show these
            data = {
                **data,
                "text/html": self._shown.to_html(),
                "image/jpeg": base64.b64encode(self._shown.poster).decode(),
            }
        return data, metadata

    def __repr__(self) -> str:
        return f"LiveViewer({self._shown!r})"
