"""The explorer: controls, viewer, charts, regions and text, all following one state."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from attnlib.errors import InputError
from attnlib.picture import load_picture
from attnlib.record import Relevance
from attnlib.widgets.bench import Bench
from attnlib.widgets.chart import BarChart, show_profile
from attnlib.widgets.downloads import download_box
from attnlib.widgets.exporting import (
    beyond_parameters,
    other_source,
    parameters_yaml,
    view_json,
    view_picture,
)
from attnlib.widgets.fragment import page
from attnlib.widgets.guard import Guard
from attnlib.widgets.live import LiveViewer
from attnlib.widgets.menu import Menu
from attnlib.widgets.state import read_target
from attnlib.widgets.telling import in_words, message, problem, sentences
from attnlib.widgets.text_bench import TextBench
from attnlib.widgets.viewing import Viewer
from attnlib.widgets.whole_file import write_whole
from attnlib.widgets.work import AfterRest, Cancelled, Step, Worker

__all__ = ["Explorer"]


class Explorer(widgets.VBox):
    """The bench of :func:`explore`. ``.state`` is what is chosen; everything shown follows it."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.state = bench, bench.state
        self.problem = widgets.HTML()
        self._guard = Guard(bench.lock, self.problem)
        self.menu = Menu(self.state, self._guard)
        self.worker = Worker(self._progress, self._ended)
        bench.check = self.worker.check
        self.viewer: LiveViewer | None = None
        self.write_soon = AfterRest(self._guard(self.write))
        self._map = 1
        self._settled, self._returning = True, False  # whether what is shown is what the state names
        self._back: Callable[[], None] | None = None
        self._drawn: Relevance | None = None
        self.chart = BarChart(layout={"width": "100%"})
        self.bar = widgets.IntProgress(0, 0, 1, layout={"width": "220px", "visibility": "hidden"})
        self.step = widgets.HTML()
        self.said, self.text, self.table = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.place = widgets.VBox()
        self.downloads = download_box(self, self._guard)
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
        return [(name, partial(self._attempt, name, work)) for name, work in steps]

    def _attempt(self, name: str, work: Callable[[], None]) -> None:
        """Do a step that others do not need: what fails is noted, the rest goes on."""
        try:
            work()
        except Cancelled:
            raise
        except Exception as error:
            if self.bench.findings is not None:
                self.bench.findings.notes.append(f"{name} did not work: {in_words(error)}")

    def refresh(self) -> None:
        """Take model, picture, method and target from the menu and start the work on another thread."""
        menu, state = self.menu, self.state
        if menu.picture.value and menu.picture.value != state.picture:
            self.bench.take(menu.picture.value)
        self._settled = False
        state.model = menu.model.value
        state.target = read_target(menu.target.value)
        state.method = str(menu.method.value)
        self.problem.value = ""
        self._begin()

    def _begin(self) -> None:
        """Start all work; until it is shown, what is shown is from before."""
        self._settled = False
        self.state.shown = "method"
        self.worker.start([*self.steps(), *self.later()])

    def wait(self, timeout: float | int | None = None) -> bool:
        """Wait for the work that runs; False if it still runs after ``timeout`` seconds."""
        return self.worker.wait(timeout)

    def show_anew(self) -> None:
        """Show what another model, picture or method has found."""
        self._map = -1
        self.show(anew=True)

    def show(self, *, anew: bool = False) -> None:
        """Pack what was found and show it in the viewer; look, sides and map stay as they were chosen."""
        with self.bench.lock:
            self.worker.check()  # a hand that was quicker may have chosen another picture
            packed = self.packed(budget_mb=0.0)
            if self._settled or anew:
                self._settled, self._back = True, self.bench.keep()
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
        shown = {**packed.state["a"], **state.selection(), "map": int(bool(maps) and state.shown == "method")}
        packed.state = {**packed.state, "a": shown, "b": shown, "regions": state.show_regions}
        return packed

    def _as_shown(self, budget_mb: float | int) -> Viewer:
        """Return the present view, with the look and both sides of the viewer."""
        packed = self.packed(budget_mb=budget_mb)
        if self.viewer is not None:
            packed.state = {**packed.state, **self.viewer.state}
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

    def relevance(self) -> Relevance:
        """Return the map that is shown: the method's, or the selected layer and head.

        Raises
        ------
        InputError
            If the viewer shows another kind of attention of the model than the first.
        """
        other = other_source(self.viewer)
        if other:
            raise InputError(other)
        found = self.bench.findings
        method_shown = self.viewer is None or self.viewer.state.get("a", {}).get("map", 0) > 0
        if found is not None and found.relevance is not None and method_shown:
            return found.relevance
        return self.bench.chosen()

    def show_chart(self) -> None:
        """Draw the chosen profile over layers and heads."""
        found = self.bench.findings
        if found is not None and found.profile is not None:
            show_profile(self.chart, found.measures, found.profile, self.state)

    # taking away ----------------------------------------------------------------------------------

    def _ready(self) -> None:
        if not self._settled:
            raise InputError("the new view is not there yet: wait until it is shown, or press Cancel")

    def beyond_parameters(self) -> list[str]:
        """Say what of the present view its parameters cannot make again."""
        return beyond_parameters(self.bench, self.viewer)

    def save_html(self, path: str | os.PathLike[str], *, budget_mb: float | int = 3.0) -> Path:
        """Write the present view as one page that needs no kernel and no network."""
        self._ready()
        packed = self._as_shown(budget_mb)
        body = self.said.value + packed.to_html()
        if self.bench.findings is not None:
            body += self._told()[0]
        return write_whole(path, page(packed.title, body))

    def save_png(self, path: str | os.PathLike[str]) -> Path:
        """Write the present map over the picture, with its legend."""
        self._ready()
        look = None if self.viewer is None else self.viewer.state
        image = view_picture(self.bench, self.relevance(), suffix=Path(path).suffix, look=look)
        return write_whole(path, image)

    def save_json(self, path: str | os.PathLike[str]) -> Path:
        """Write state, map, regions, text and parameters; beside them a picture that no file holds."""
        self._ready()
        folder, beyond = Path(path).parent, self.beyond_parameters()
        return write_whole(path, view_json(self.bench, self.relevance(), folder, beyond))

    def save_parameters(self, path: str | os.PathLike[str]) -> Path:
        """Write the parameters as YAML for papermill; beside them a picture that no file holds."""
        parameters = self.parameters(Path(path).parent)
        return write_whole(path, parameters_yaml(parameters, self.beyond_parameters()))

    def parameters(self, folder: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Return the papermill parameters that reproduce the present view; see :meth:`Bench.parameters`."""
        self._ready()
        return self.bench.parameters(folder)

    # reactions ------------------------------------------------------------------------------------

    def _follow(self, change: Any) -> None:
        """Bring what is shown to a state that has changed."""
        name = change["name"]
        if self._returning:
            return
        if name == "query" and self.bench.findings is not None:
            problem = self.bench.query_problem(self.state.query)
            if problem is not None:
                self.state.choose_query(None)
                raise InputError(problem)
        if name in ("layer", "layers", "head", "heads", "query", "direction") and self.viewer is not None:
            self._choose({**self.state.selection(), "source": 0})
            if name in ("layer", "head", "heads"):
                self.show_chart()
            self.write_soon()
        elif name == "item" and isinstance(self.bench, TextBench):
            self.bench.choose_item(self.state.item)
            self._begin()
        elif name == "shown" and self.viewer is not None and self._settled:
            maps = bool(self.viewer.document["sources"][0]["maps"])
            self._choose({"source": 0, "map": int(maps and self.state.shown == "method")})
        elif name == "palette" and self.viewer is not None:
            self.viewer.state = {**self.viewer.state, "palette": self.state.palette}
        elif name == "show_regions" and self.viewer is not None:
            self.viewer.state = {**self.viewer.state, "regions": self.state.show_regions}
        elif name == "measure":
            self.show_chart()
        self.menu.sync()

    def _choose(self, wanted: dict[str, Any]) -> None:
        """Show a selection in the viewer where it shows another; what does not exist is not chosen."""
        now = {} if self.viewer is None else self.viewer.state.get("a", {})
        if self.viewer is None or all(now.get(key) == value for key, value in wanted.items()):
            return
        try:
            self.viewer.choose(**{"map": 0, **wanted})
        except InputError:
            self.state.take_selection(now)
            raise

    def _heard(self, shown: dict[str, Any]) -> None:
        """Follow the hand in the viewer."""
        if shown["a"].get("source", 0):
            self.write_soon()  # positions there are none of the state's
        else:
            self.state.take_selection(shown["a"])
            if (
                self._settled
                and self.bench.findings is not None
                and self.bench.findings.relevance is not None
            ):
                self.state.shown = "method" if shown["a"].get("map", 0) else "attention"
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
        self.bench.held[name] = load_picture(data)
        self.bench.take_picture(name)
        self.menu.picture.value = name
        self.refresh()

    def _progress(self, done: int, total: int, name: str) -> None:
        self.bar.max, self.bar.value = total, done
        self.bar.layout.visibility = "hidden" if done == total else "visible"
        self.menu.cancel.disabled = done == total
        self.step.value = message(f"{name} ({done + 1} of {total})" if name else "")

    def _ended(self, error: BaseException | None) -> None:
        with self.bench.lock:
            if not self.worker.is_latest:
                return  # another job has begun, and its progress is shown
            if error is not None and not self._settled and self._back is not None:
                self._go_back(self._back)
            self._progress(1, 1, "")
        if isinstance(error, Cancelled):
            self.step.value = message(str(error))
        elif error is not None:
            self.problem.value = problem(error)

    def _go_back(self, back: Callable[[], None]) -> None:
        """Make the state name what is still shown; what was typed stays to be mended."""
        again = self.menu.typed()
        self._returning = True
        try:
            back()
        finally:
            self._returning = False
        self._settled = True
        self.menu.sync()
        again()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        packed = None if self.viewer is None else self.viewer.packed
        if packed is None:
            return data, metadata
        # saved notebooks and exports have no kernel: they get what is packed already, which costs nothing
        if self.state.kind == "picture" and self.state.query is not None and self._settled:
            packed = self._as_shown(1.0)  # but for a patch, whose map would not be among it
        still = base64.b64encode(packed.poster).decode()
        return {**data, "text/html": self.said.value + packed.to_html(), "image/jpeg": still}, metadata

    def __repr__(self) -> str:
        return f"Explorer({self.state.model!r}, {self.state.picture!r}, {self.state.method!r})"
