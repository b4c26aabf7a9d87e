"""The explorer's work, without any widget: model, capture, method, regions, profile and text."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from attnlib.errors import AttnlibError, InputError
from attnlib.hooks import capture
from attnlib.hooks.blocks import norms_of_blocks, stoppable
from attnlib.interpretation import interpret
from attnlib.methods import METHODS, explain
from attnlib.models import LoadedModel, load_model
from attnlib.picture import Picture, load_picture
from attnlib.profiles import layer_profile
from attnlib.record import AttentionRecord, Relevance
from attnlib.regions import Regions
from attnlib.widgets.findings import Findings, artifact_shares, say
from attnlib.widgets.image_source import image_layers
from attnlib.widgets.poster import shown_relevance
from attnlib.widgets.state import ExplorerState
from attnlib.widgets.telling import region_table
from attnlib.widgets.viewing import Viewer, viewer
from attnlib.widgets.whole_file import write_whole

__all__ = ["ATTENTION", "Bench"]

ATTENTION = "attention"
"""The choice of no method: layers and heads as they are."""
_LARGE = 3e7
_OF_THE_WORK = ("model", "picture", "method", "options", "target", "item", "query", "shown")


class Bench:
    """Loads, captures and explains what a state asks for, each only when it has changed.

    Widget callbacks run on other threads than cells do: what is found is read and written under one
    lock. What takes long runs outside of it, so that the hand is never kept waiting.
    """

    def __init__(self, state: ExplorerState) -> None:
        self.state = state
        self.lock = threading.RLock()
        self.loaded: LoadedModel | None = None
        self.picture: Picture | None = None
        self.size: int | tuple[int, int] | None = None
        self.findings: Findings | None = None
        self.check: Callable[[], None] = lambda: None
        self.held: dict[str, Picture] = {}
        self._captured: tuple[Any, ...] | None = None
        self._captured_picture: Picture | None = None  # kept alive: the key holds its id
        self._given: Regions | None = None
        self._inputs: Any = None
        self._looking: tuple[Picture, Future[Regions]] | None = None
        self._in_memory = False
        self._elsewhere = False

    def keep(self) -> Callable[[], None]:
        """Remember what there is now; calling the answer goes back to it, after work that did not end."""
        apart = ("lock", "state", "check", "held")
        with self.lock:
            found, mine = self.findings, {name: one for name, one in vars(self).items() if name not in apart}
            relevance = None if found is None else found.relevance
            chosen = {name: getattr(self.state, name) for name in _OF_THE_WORK}

        def back() -> None:
            with self.lock:
                vars(self).update(mine)
                if found is not None:
                    found.relevance = relevance
                with self.state.hold_trait_notifications():
                    for name, value in chosen.items():
                        self.state.set_trait(name, value)

        return back

    def take(self, source: Any) -> None:
        """Use another input of the kind that this bench shows."""
        self.take_picture(source)

    def size_of_picture(self) -> tuple[int, int]:
        """Return (height, width) of the picture."""
        if self.picture is None:
            raise InputError("choose a picture first")
        return self.picture.size

    def take_model(self, model: LoadedModel) -> None:
        """Use a model that is loaded already."""
        self.loaded = model
        self.state.model = model.name
        self._elsewhere = False

    def take_picture(self, source: Any) -> None:
        """Use a picture: a file, a sample, pixels, or the name of one that was uploaded or pasted before."""
        held = self.held.get(source) if isinstance(source, str) else None
        self.picture = load_picture(source) if held is None else held
        self._in_memory = held is not None or not isinstance(source, (str, Path))
        self._given = None
        name = str(source) if isinstance(source, (str, Path)) else self.picture.name
        self.state.picture = name

    def take_record(self, record: AttentionRecord) -> None:
        """Show a record that was captured elsewhere."""
        self._elsewhere = True
        self.findings = Findings(record)
        self._captured, self._captured_picture = self._key(), self.picture

    def parameters(self, folder: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Return the papermill parameters that make the present view again.

        Parameters
        ----------
        folder : where a picture that no file holds (pasted, uploaded, an array) is written, named by its
            content; the parameters then name that file. None = the parameters name it as the view does.
        """
        parameters = self.state.to_parameters()
        if self.size is not None:
            parameters["size"] = self.size if isinstance(self.size, int) else list(self.size)
        if folder is not None and self._in_memory and self.picture is not None:
            name = f"picture-{self.picture.sha256[:12]}.png"
            if not (Path(folder) / name).exists():
                buffer = io.BytesIO()
                self.picture.to_pil().save(buffer, "PNG")
                write_whole(Path(folder) / name, buffer.getvalue())
            parameters["picture"] = name
        return parameters

    def beyond_parameters(self) -> list[str]:
        """Say what of the present view its parameters cannot make again."""
        said = []
        if self._elsewhere:
            said.append("The attention was captured elsewhere: the parameters only name its model.")
        if self._given is not None and len(self._given):
            said.append("The parts of the picture were given by hand and are not among the parameters.")
        return said

    def take_regions(self, regions: Regions | None) -> None:
        """Use regions that were given."""
        self._given = regions

    def load(self) -> None:
        """Load the model that the state names; a record that was given needs none."""
        with self.lock:
            if self.loaded is None and self.findings is not None and self._captured == self._key():
                return
            if self.loaded is None or self.loaded.name != self.state.model:
                self.loaded = load_model(self.state.model)

    def capture(self) -> None:
        """Run the model once on the picture, and backward too if the method asks for a target."""
        with self.lock:
            key = self._key()
            if self._captured == key and self.findings is not None:
                return
            loaded, picture, size = self.loaded, self.picture, self.size
            if loaded is None or picture is None:
                raise InputError("choose a model and a picture first")
            target, internals = self.wanted_of_capture()
            kept = self.findings.regions if self.findings and self._same_picture() else None
        prepared = loaded.prepare(picture, size=size)
        with stoppable(loaded.model, self.check), norms_of_blocks(loaded.model) as norms:
            record = capture(loaded, prepared, target=target, internals=internals)
        found = Findings(record, regions=kept, norms=norms)
        say(found, loaded, prepared)
        with self.lock:
            self.findings, self._inputs, self._captured = found, prepared.inputs, key
            self._captured_picture = picture
            self.drop_lost_query()

    def query_problem(self, query: tuple[int, int] | int | None) -> str | None:
        """Say why what is shown has no such query, or None."""
        if query is None:
            return None
        grid = image_layers(self.vision())[-1][1].grid or (0, 0)
        if isinstance(query, tuple) and all(0 <= at < count for at, count in zip(query, grid, strict=True)):
            return None
        return f"patch {query} does not exist: there are {grid[0]}x{grid[1]} patches"

    def drop_lost_query(self) -> None:
        """Forget a query that another picture, text or model does not have, and say so."""
        problem = self.query_problem(self.state.query)
        if problem is not None:
            self._found().notes.append(f"The query was given up: {problem}.")
            self.state.choose_query(None)

    def wanted_of_capture(self) -> tuple[Any, bool]:
        """Return the target and whether internals are kept, as the chosen method needs them."""
        explains = self.explains_target()
        target = self.state.target if explains else None
        if explains and target is None:
            raise InputError(f"{self.state.method} explains one answer of the model: choose a target")
        return target, self.needs_internals()

    def explain(self) -> None:
        """Run the method."""
        with self.lock:
            found, state = self._found(), self.state
            found.relevance = None
            if state.method == ATTENTION:
                return
            record, method, query, options = self.vision(), state.method, state.query, dict(state.options)
        relevance = explain(record, method, query=query, **options)
        with self.lock:
            found.relevance = relevance

    def measure(self) -> None:
        """Profile every layer and head."""
        with self.lock:
            found, record = self._found(), self.vision()
            if found.profile is not None:
                return
            loaded, inputs = self.loaded, self._inputs
        try:
            profile = layer_profile(record, max_rows=64)
        except AttnlibError as problem:
            found.notes.append(f"no profile: {problem}")
            return
        names = ("entropy", "distance", "prefix_share")
        measures = {name: getattr(profile, name)[0].double().numpy() for name in names}
        try:
            shares = artifact_shares(record, found.norms, loaded, inputs)
            if shares is not None:
                measures["artifact_share"] = shares
        except (AttnlibError, TypeError) as problem:
            found.notes.append(f"artifact patches are not known: {problem}")
        with self.lock:
            found.measures.update(measures)
            found.profile = profile

    def look(self) -> None:
        """Begin to look for the named parts of the picture, beside other work; :meth:`find` waits for it."""
        from attnlib.finders import find_regions

        with self.lock:
            picture = self.picture
            known = self.findings is not None and self.findings.regions is not None
            begun = self._looking is not None and self._looking[0] is picture
            if picture is None or self._given is not None or known or begun:
                return
            future: Future[Regions] = Future()
            self._looking = picture, future

        def search() -> None:
            try:
                future.set_result(find_regions(picture))
            except BaseException as problem:  # told where it is waited for
                future.set_exception(problem)

        threading.Thread(target=search, name="attnlib-finder", daemon=True).start()

    def find(self) -> None:
        """Find the named parts of the picture."""
        self.look()
        with self.lock:
            found, looking = self._found(), self._looking
            if self._given is not None:
                found.regions = self._given
            if found.regions is not None or looking is None:
                return
        picture, future = looking
        while not future.done():
            self.check()
            wait([future], timeout=0.1)
        if future.exception() is not None:
            self._looking = None  # the next one may try again
        regions = future.result()
        with self.lock:
            if picture is self.picture:
                found.regions = regions

    def told(self, relevance: Relevance) -> tuple[str, str]:
        """Return what a map says in words, and the table of the parts of the picture, as HTML.

        The map is the method's, or that of the chosen layer and head.
        """
        with self.lock:
            found = self._found()
            found.interpretation = None
            regions = found.regions if found.regions is not None and len(found.regions) else None
            found.interpretation = interpret(relevance, regions, said=found.said or None, index=0)
            return found.interpretation.to_html(), region_table(found.regions, relevance)

    def view(
        self, *, regions: Regions | None, relevances: Mapping[str, Relevance], budget_mb: float | int
    ) -> Viewer:
        """Pack what was found for the viewer, patch queries within a budget (0 = a kernel answers)."""
        return viewer(
            self.vision(),
            self._captured_picture,
            regions=regions,
            relevances=relevances,
            budget_mb=budget_mb,
            palette=self.state.palette,
            title=f"{self.state.model}: {self.state.picture}",
        )

    def chosen(self) -> Relevance:
        """Return the map of the selected layer (or of all, merged), head and query.

        Raises
        ------
        InputError
            If the direction is turned round, or layers of different grids are merged.
        """
        return shown_relevance(self.vision(), self.state)

    def vision(self) -> AttentionRecord:
        """Return the part of the record that has patches."""
        record = self._found().record
        if len(record.streams) > 1 and "vision" in record.streams:
            return record.select(stream="vision")
        return record

    def is_large(self) -> bool:
        """Whether a method over this record may take seconds: many queries and keys in many layers."""
        layers = self.vision().layers
        return sum(one.num_queries * one.num_keys * one.num_heads for one in layers) > _LARGE

    def depth(self) -> int:
        """Return how many layers can be shown."""
        return len(image_layers(self.vision()))

    def needs_internals(self) -> bool:
        """Tell whether the chosen method needs the capture to keep internals."""
        return self.state.method != ATTENTION and METHODS[self.state.method].needs_internals

    def explains_target(self) -> bool:
        """Tell whether the chosen method explains one answer of the model."""
        return self.state.method != ATTENTION and METHODS[self.state.method].explains_target

    def _found(self) -> Findings:
        if self.findings is None:
            raise InputError("nothing has been captured yet")
        return self.findings

    def _key(self) -> tuple[Any, ...]:
        target = self.state.target if self.explains_target() else None
        inside = self.needs_internals()
        return self.state.model, self.state.picture, id(self.picture), target, inside, self.size

    def _same_picture(self) -> bool:
        return self._captured is not None and self._captured[2] == id(self.picture)
