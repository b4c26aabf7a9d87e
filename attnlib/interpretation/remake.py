"""Making the same map again for another picture: what the checks of a text need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from attnlib.errors import NeedsError
from attnlib.evaluate.again import asked_query, given_options
from attnlib.evaluate.trials import needs_of
from attnlib.hooks import capture
from attnlib.methods import METHODS, explain
from attnlib.picture import Picture, View
from attnlib.record import AttentionRecord, Relevance

__all__ = ["MapMaker", "first_tensor"]


@dataclass(eq=False)
class MapMaker:
    """Makes the map of a picture anew, as another map was made.

    Parameters
    ----------
    loaded : a LoadedModel.
    method, query, options : as for ``explain``; a patch stands for the place that it shows.
    view : what the model saw of the picture when the first map was made.
    size : input size for ``LoadedModel.prepare``; None if its own choice is the one that was used.
    target : for methods that need a gradient.
    """

    loaded: Any
    method: str
    query: Any
    options: Mapping[str, Any]
    view: View | None = None
    size: tuple[int, int] | None = None
    target: Any = None

    @classmethod
    def for_relevance(
        cls, relevance: Relevance, loaded: Any, picture: Picture, target: Any = None
    ) -> MapMaker:
        """Read off a relevance how it was made.

        Raises
        ------
        NeedsError
            If it does not say enough: made by hand, a query that cannot be asked again, a gradient
            without its target.
        """
        if relevance.method not in METHODS:
            raise NeedsError(f"the map was made by {relevance.method!r}, which cannot be run again")
        query = asked_query(relevance)
        if any(isinstance(one, int) for one in (query if isinstance(query, list) else [query])):
            raise NeedsError(f"the query {relevance.query!r} cannot be asked again for another picture")
        options, told = given_options(relevance)
        target = told if target is None else target
        if target is None and METHODS[relevance.method].explains_target:
            raise NeedsError(f"the method {relevance.method!r} needs a target: pass target= to interpret")
        view = relevance.views[0] if relevance.views else None
        size = None
        if view is not None:
            own = loaded.prepare([picture]).views[0].input_size
            size = None if tuple(own) == tuple(view.input_size) else view.input_size
        return cls(loaded, relevance.method, query, options, view, size, target)

    def record(self, picture: Picture, *, internals: bool = False) -> AttentionRecord:
        """Capture the attention of the model for a picture."""
        needs_internals, explains_target = needs_of(self.method)
        record = capture(
            self.loaded,
            self.loaded.prepare([picture], size=self.size),
            target=self.target if explains_target else None,
            internals=internals or needs_internals,
        )
        return record.over_picture()

    def __call__(
        self, picture: Picture, to_picture: Callable[[float, float], tuple[float, float]] | None = None
    ) -> Relevance:
        """Make the map of a picture.

        Parameters
        ----------
        picture : the changed picture.
        to_picture : where a place (x, y) of the original lies in it; for a query that is a patch.
        """
        record = self.record(picture)
        return self.explained(record, self._moved(record, to_picture))

    def explained(self, record: AttentionRecord, query: Any = ..., **changes: Any) -> Relevance:
        """Make the map of a record, possibly with another query or other options."""
        return explain(
            record, self.method, query=self.query if query is ... else query, **{**self.options, **changes}
        )

    def _moved(self, record: AttentionRecord, move: Any) -> Any:
        """Return the query; patches become those that show the same places in the changed picture."""
        grid, patch, view = record.layout.grid, record.layout.patch_size, self.view
        if move is None or view is None or not record.views or grid is None or patch is None:
            return self.query

        def moved(one: Any) -> Any:
            if not isinstance(one, tuple):
                return one
            x, y = view.to_picture((one[1] + 0.5) * patch[1], (one[0] + 0.5) * patch[0])
            x, y = record.views[0].to_input(*move(x, y))
            row = int(np.clip(y // patch[0], 0, grid[0] - 1))
            return row, int(np.clip(x // patch[1], 0, grid[1] - 1))

        if isinstance(self.query, list):
            return list(dict.fromkeys(moved(one) for one in self.query))
        return moved(self.query)


def first_tensor(inputs: Mapping[str, Any]) -> tuple[str, Tensor]:
    """Return the picture among the inputs of a model: the first tensor [batch, channel, height, width].

    Raises
    ------
    NeedsError
        If there is none.
    """
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point():
            return name, value
    raise NeedsError("the model takes no picture as one tensor [batch, channel, height, width]")
