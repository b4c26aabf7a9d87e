"""The explorer: controls, viewer, charts, regions and text, all following one state."""

from __future__ import annotations

import base64
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from attnlib.errors import AttnlibError, InputError
from attnlib.picture import load_picture
from attnlib.record import Relevance
from attnlib.widgets.bench import Bench
from attnlib.widgets.chart import MEASURES, BarChart, profile_bars
from attnlib.widgets.exporting import parameters_yaml, view_json, view_picture
from attnlib.widgets.fragment import page
from attnlib.widgets.live import LiveViewer
from attnlib.widgets.menu import Menu
from attnlib.widgets.telling import message, problem, sentences
from attnlib.widgets.text_bench import TextBench
from attnlib.widgets.viewing import Viewer
from attnlib.widgets.whole_file import write_whole
from attnlib.widgets.work import Cancelled, Step, Worker

__all__ = ["Explorer", "read_target"]

_REST = 0.4


class Explorer(widgets.VBox):
    """The bench of :func:`explore`. ``.state`` is what is chosen; everything shown follows it."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.state = bench, bench.state
        self.menu = Menu(self.state, self._guard)
        self.worker = Worker(self._progress, self._ended)
        bench.check = self.worker.check
        self.viewer: LiveViewer | None = None
        self._pause: threading.Timer | None = None
        self._map = 1
        self._reacting = False
        self._drawn: Relevance | None = None
        self.chart = BarChart(layout={"width": "100%"})
        self.problem = widgets.HTML()
        self.bar = widgets.IntProgress(0, 0, 1, layout={"width": "220px", "visibility": "hidden"})
        self.step = widgets.HTML()
        self.said, self.text, self.table = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.place = widgets.VBox()
        self.downloads = self._downloads()
        first, second = self.menu.boxes()
        charts = widgets.VBox([self.menu.measure, self.chart], layout={"width": "100%"})
        parts = "Tokens" if self.state.kind == "text" else "Parts of the picture"
        names = ("What the map says", parts, "Layers and heads", "Take it away")
        panels = widgets.Stack([self.text, self.table, charts, self.downloads], selected_index=0)
        chooser = widgets.ToggleButtons(options=[(name, n) for n, name in enumerate(names)])
        widgets.jslink((chooser, "index"), (panels, "selected_index"))
        status = widgets.HBox([self.bar, self.step])
        super().__init__([first, status, self.problem, self.said, second, self.place, chooser, panels])
        self.add_class("attnlib-explorer")
        self.state.observe(self._guard(self._follow))
        self.menu.run.on_click(self._guard(lambda _: self.refresh()))
        self.menu.cancel.on_click(lambda _: self.worker.cancel())  # never waits for the work it stops
        self.menu.upload.observe(self._guard(self._uploaded), names="value")
        self.chart.on_choice(self._guard(self.state.goto))

    # work -----------------------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """Return what must be done before the state is shown, in order."""
        bench = self.bench
        return [
            (f"loading {self.state.model or 'the model'}", bench.load),
            ("running the model", bench.capture),
            (f"explaining by {self.state.method}", bench.explain),
            ("drawing", self.show_anew),
        ]

    def later(self) -> list[Step]:
        """Return what may come after the first picture, in order."""
        bench = self.bench
        steps = [
            ("looking for parts of the picture", bench.look),
            ("measuring layers and heads", bench.measure),
            ("charts", self.show_chart),
            ("looking for parts of the picture", bench.find),
            ("writing", self.write),
            ("drawing", self.show),
        ]
        if self.state.kind == "text":
            steps = [steps[1], steps[2], steps[4]]
        return [(name, self._attempt(name, work)) for name, work in steps]

    def _attempt(self, name: str, work: Callable[[], None]) -> Callable[[], None]:
        """Wrap a step that others do not need: what fails is noted, the rest goes on."""

        def attempt() -> None:
            try:
                work()
            except Cancelled:
                raise
            except Exception as error:
                words = str(error) if isinstance(error, AttnlibError) else f"{type(error).__name__}: {error}"
                if self.bench.findings is not None:
                    self.bench.findings.notes.append(f"{name} did not work: {words}")

        return attempt

    def refresh(self) -> None:
        """Take model, picture, method and target from the menu and start the work on another thread."""
        menu, state = self.menu, self.state
        if menu.picture.value and menu.picture.value != state.picture:
            self.bench.take(menu.picture.value)
        state.model = menu.model.value
        state.target = read_target(menu.target.value)
        state.method = str(menu.method.value)
        self.problem.value = ""
        self.worker.start([*self.steps(), *self.later()])

    def wait(self, timeout: float | int | None = None) -> bool:
        """Wait for the work that runs; False if it still runs after ``timeout`` seconds."""
        return self.worker.wait(timeout)

    def show_anew(self) -> None:
        """Show what another model, picture or method has found."""
        self._map = -1
        self.show()

    def show(self) -> None:
        """Pack what was found and show it in the viewer; look, sides and map stay as they were chosen."""
        with self.bench.lock:
            packed = self.packed(budget_mb=0.0)
        layers = packed.document["sources"][0]["layers"]
        texts = max(1, len(self.bench.texts)) if isinstance(self.bench, TextBench) else 1
        self.menu.limit(len(layers), max(len(one["heads"]) for one in layers), texts)
        if self.bench.loaded is not None:
            self.menu.offer_targets(self.bench.loaded.labels)
        if self.viewer is None:
            self.viewer = packed.widget()
            self.viewer.watch(self._guard(self._heard))
            self.viewer.on_picture(self._guard(self._pasted))
            self.place.children = (self.viewer,)
            self._map = packed.state["a"]["map"]
            self._drawn = None if self.bench.findings is None else self.bench.findings.relevance
        else:
            self.viewer.show(packed, state=self._kept(packed))
        found = self.bench.findings
        if found is not None:
            self.said.value = sentences("What the model said", [*found.said, *found.notes])
        self.menu.sync()

    def _kept(self, packed: Viewer) -> dict[str, Any]:
        """Return the state of the viewer for new contents: a new map is shown, the rest stays."""
        before = self.viewer.state if self.viewer is not None else {}
        look = {key: value for key, value in before.items() if key not in ("a", "b", "two")}
        found = self.bench.findings
        new = self._map == -1 or found is None or found.relevance is not self._drawn
        self._drawn = None if found is None else found.relevance
        if new:
            self._map = packed.state["a"]["map"]
            return {**packed.state, **look}
        return {**packed.state, **before}

    def packed(self, *, budget_mb: float | int = 3.0) -> Viewer:
        """Return the present view as a viewer that holds patch queries within a budget."""
        found, state = self.bench.findings, self.state
        if found is None:
            raise InputError("there is nothing to show yet")
        maps = {} if found.relevance is None else {found.relevance.method: found.relevance}
        regions = found.regions if found.regions is not None and len(found.regions) else None
        packed = self.bench.view(regions=regions, relevances=maps, budget_mb=budget_mb)
        state.layer = min(state.layer, len(packed.document["sources"][0]["layers"]) - 1)
        shown = {**packed.state["a"], **state.selection(), "map": int(bool(maps))}
        packed.state = {**packed.state, "a": shown, "b": shown, "regions": state.show_regions}
        return packed

    def write(self) -> None:
        """Write the text and the table of regions for the map that is shown."""
        self.text.value, self.table.value = self._told()

    def _told(self) -> tuple[str, str]:
        try:
            relevance = self.relevance()
        except InputError as error:  # a view that no words are written for can still be looked at and saved
            return message(str(error)), message(str(error))
        return self.bench.told(relevance)

    def write_soon(self) -> None:
        """Write again when the hand has rested for a moment."""
        if self._pause is not None:
            self._pause.cancel()
        self._pause = threading.Timer(_REST, self._guard(self.write))
        self._pause.daemon = True
        self._pause.start()

    def relevance(self) -> Relevance:
        """Return the map that is shown: the method's, or the selected layer and head."""
        found = self.bench.findings
        method_shown = self.viewer is None or self.viewer.state.get("a", {}).get("map", 0) > 0
        if found is not None and found.relevance is not None and method_shown:
            return found.relevance
        return self.bench.chosen()

    def show_chart(self) -> None:
        """Draw the chosen profile over layers and heads."""
        found, state = self.bench.findings, self.state
        if found is None or found.profile is None:
            return
        values = found.measures.get(state.measure)
        if values is None:
            self.chart.words = f"{MEASURES[state.measure]} is not known for this model"
            return
        layer = min(state.layer, len(found.profile.layers) - 1)
        head = state.head if state.heads == "one" else None
        figure = profile_bars(values, found.profile, measure=state.measure, layer=layer, head=head)
        best = np.unravel_index(int(np.argmax(values)), values.shape)
        highest = f"highest at layer {found.profile.layers[best[0]]}, head {found.profile.heads[best[1]]}"
        self.chart.show(figure, words=f"{MEASURES[state.measure]} of every layer and head; {highest}")

    # taking away ----------------------------------------------------------------------------------

    def save_html(self, path: str | os.PathLike[str], *, budget_mb: float | int = 3.0) -> Path:
        """Write the present view as one page that needs no kernel and no network."""
        packed = self.packed(budget_mb=budget_mb)
        body = self.said.value + packed.to_html()
        if self.bench.findings is not None:
            body += self._told()[0]
        return write_whole(path, page(packed.title, body))

    def save_png(self, path: str | os.PathLike[str]) -> Path:
        """Write the present map over the picture, with its legend."""
        return write_whole(path, view_picture(self.bench, self.relevance(), suffix=Path(path).suffix))

    def save_json(self, path: str | os.PathLike[str]) -> Path:
        """Write state, map, regions, text and parameters; beside them a picture that no file holds."""
        return write_whole(path, view_json(self.bench, self.relevance(), Path(path).parent))

    def save_parameters(self, path: str | os.PathLike[str]) -> Path:
        """Write the parameters as YAML for papermill; beside them a picture that no file holds."""
        parameters = self.parameters(Path(path).parent)
        return write_whole(path, parameters_yaml(parameters, self.bench.beyond_parameters()))

    def parameters(self, folder: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Return the papermill parameters that reproduce the present view.

        Parameters
        ----------
        folder : where a picture that was pasted, uploaded or given as pixels is written, so that the
            parameters can name a file; without it they carry the name it is shown by.
        """
        return self.bench.parameters(folder)

    def _downloads(self) -> widgets.Widget:
        name = widgets.Text("attention", description="file name", style={"description_width": "initial"})
        link = widgets.HTML()

        def saver(suffix: str, save: Callable[[Path], Path]) -> widgets.Button:
            button = widgets.Button(description=f"Save {suffix.upper()}", tooltip=f"save as {suffix}")

            def act(_: Any) -> None:
                written = save(Path(Path(name.value or "attention").name + f".{suffix}"))
                words = [f"written to {written}"]
                if suffix in ("yaml", "json"):
                    kept = self.parameters(written.parent).get("picture")
                    beside = kept is not None and kept != self.state.picture
                    words += [f"and the picture to {kept}"] if beside else []
                    words += self.bench.beyond_parameters()
                link.value = message(". ".join(one.rstrip(".") for one in words))

            button.on_click(self._guard(act))
            return button

        buttons = [
            saver("html", lambda path: self.save_html(path)),
            saver("png", lambda path: self.save_png(path)),
            saver("json", lambda path: self.save_json(path)),
            saver("yaml", lambda path: self.save_parameters(path)),
        ]
        return widgets.VBox([widgets.HBox([name, *buttons], layout={"flex_flow": "row wrap"}), link])

    # reactions ------------------------------------------------------------------------------------

    def _guard(self, react: Callable[..., None]) -> Callable[..., None]:
        """Wrap a reaction: one at a time, and its errors are shown in place, in words."""

        @functools.wraps(react)
        def guarded(*given: Any) -> None:
            with self.bench.lock:
                first, self._reacting = not self._reacting, True  # one reaction may set off others
                if first and self.problem.value:
                    self.problem.value = ""
                try:
                    react(*given)
                except Exception as error:
                    self.problem.value = problem(error)
                finally:
                    self._reacting = not first

        return guarded

    def _follow(self, change: Any) -> None:
        """Bring what is shown to a state that has changed."""
        name = change["name"]
        if name == "query" and self.bench.findings is not None:
            problem = self.bench.query_problem(self.state.query)
            if problem is not None:
                self.state.choose_query(None)
                raise InputError(problem)
        if name in ("layer", "layers", "head", "heads", "query", "direction") and self.viewer is not None:
            now = self.viewer.state.get("a", {})
            wanted = self.state.selection()
            if any(now.get(key) != value for key, value in wanted.items()):
                self.viewer.choose(**wanted, map=0)
            if name in ("layer", "head", "heads"):
                self.show_chart()
            self.write_soon()
        elif name == "item" and isinstance(self.bench, TextBench):
            self.bench.choose_item(self.state.item)
            self.worker.start([*self.steps(), *self.later()])
        elif name == "palette" and self.viewer is not None:
            self.viewer.state = {**self.viewer.state, "palette": self.state.palette}
        elif name == "show_regions" and self.viewer is not None:
            self.viewer.state = {**self.viewer.state, "regions": self.state.show_regions}
        elif name == "measure":
            self.show_chart()
        self.menu.sync()

    def _heard(self, shown: dict[str, Any]) -> None:
        """Follow the hand in the viewer."""
        self.state.take_selection(shown["a"])
        if shown["a"].get("map", 0) != self._map:
            self._map = shown["a"].get("map", 0)
            self.write_soon()
        self.state.palette = shown.get("palette", self.state.palette)
        self.state.show_regions = bool(shown.get("regions", True))

    def _uploaded(self, change: Any) -> None:
        for given in change["new"]:
            self._take_bytes(bytes(given["content"]), given["name"])

    def _pasted(self, data: bytes) -> None:
        self._take_bytes(data, "pasted picture")

    def _take_bytes(self, data: bytes, name: str) -> None:
        if self.state.kind == "text":
            raise InputError("this explorer shows texts: open explore(model, picture) for a picture")
        self.bench.take_picture(load_picture(data))
        self.state.picture = name
        self.menu.picture.value = name
        self.refresh()

    def _progress(self, done: int, total: int, name: str) -> None:
        self.bar.max, self.bar.value = total, done
        self.bar.layout.visibility = "hidden" if done == total else "visible"
        self.menu.cancel.disabled = done == total
        self.step.value = message(f"{name} ({done + 1} of {total})" if name else "")

    def _ended(self, error: BaseException | None) -> None:
        self._progress(1, 1, "")
        if isinstance(error, Cancelled):
            self.step.value = message(str(error))
        elif error is not None:
            self.problem.value = problem(error)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        packed = None if self.viewer is None else self.viewer.packed
        if packed is None:
            return data, metadata
        # saved notebooks and exports have no kernel: they get what is packed already, which costs nothing
        still = base64.b64encode(packed.poster).decode()
        return {**data, "text/html": self.said.value + packed.to_html(), "image/jpeg": still}, metadata

    def __repr__(self) -> str:
        return f"Explorer({self.state.model!r}, {self.state.picture!r}, {self.state.method!r})"


def read_target(text: Any) -> Any:
    """Return a target as ``capture`` takes it: nothing, an index, a label, or what was given."""
    if not isinstance(text, str):
        return text
    text = text.strip()
    if not text:
        return None
    return int(text) if text.lstrip("-").isdigit() else text
