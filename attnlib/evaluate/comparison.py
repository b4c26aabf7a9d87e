"""Comparison: how much maps of methods, models, layers or pictures agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.evaluate.common_grid import on_common_grid
from attnlib.evaluate.statistics import mean_ranks
from attnlib.methods import METHODS, Request, explain
from attnlib.record import AttentionRecord, Relevance
from attnlib.record.indices import Indices, whole_numbers

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["MEASURE_WORDS", "Comparison", "compare"]

MEASURE_WORDS = {
    "rank_correlation": "rank correlation (1: same order of patches, 0: unrelated, -1: reversed)",
    "top_overlap": "share of the strongest patches that both maps have",
    "mass_overlap": "share of the mass that lies at the same place",
}
_METHODS = ("raw", "rollout", "generic_relevance", "attention_grad_cam", "uniform", "random", "centre")


@dataclass(eq=False, repr=False)
class Comparison:
    """Maps side by side, and how much each pair agrees.

    Parameters
    ----------
    names : of what is compared.
    maps : shares of mass on the common grid, summing to 1 per map.
    rank_correlation : Spearman's, over the values (signed where a method is); nan for a map without
        any order.
    top_overlap : share of the ``top`` strongest patches that both have; patches that tie for the last places
        share them, so that a constant map gains nothing by the order in which patches stand.
    mass_overlap : sum over patches of the smaller of the two shares.
    top : how many patches count as the strongest.
    notes : sentences a reader must know.
    """

    names: tuple[str, ...]
    maps: Float[Tensor, "map batch height width"]
    rank_correlation: Float[Tensor, "batch map map"]
    top_overlap: Float[Tensor, "batch map map"]
    mass_overlap: Float[Tensor, "batch map map"]
    top: int
    notes: tuple[str, ...] = ()

    def difference(self, first: str, second: str) -> Float[Tensor, "batch height width"]:
        """Return the shares of ``first`` minus those of ``second``."""
        return self.maps[self._place(first)] - self.maps[self._place(second)]

    def matrix(self, measure: str = "rank_correlation") -> Float[Tensor, "map map"]:
        """Return one measure, averaged over the batch."""
        if measure not in MEASURE_WORDS:
            raise InputError(f"no measure {measure!r}; known: {', '.join(MEASURE_WORDS)}")
        return getattr(self, measure).mean(dim=0)

    def to_frame(self) -> pd.DataFrame:
        """Return a table: one row per item and pair."""
        import pandas as pd

        rows = [
            {
                "item": item,
                "first": self.names[a],
                "second": self.names[b],
                **{measure: float(getattr(self, measure)[item, a, b]) for measure in MEASURE_WORDS},
            }
            for item in range(self.maps.shape[1])
            for a in range(len(self.names))
            for b in range(a + 1, len(self.names))
        ]
        return pd.DataFrame(rows, columns=["item", "first", "second", *MEASURE_WORDS])

    def figure(self, measure: str = "rank_correlation", *, index: int = 0, dark: bool = False) -> go.Figure:
        """Draw the maps of one item, and below them how much each pair agrees."""
        from attnlib.viz.comparing import comparison_figure

        if measure not in MEASURE_WORDS:
            raise InputError(f"no measure {measure!r}; known: {', '.join(MEASURE_WORDS)}")
        self._check_item(index)
        return comparison_figure(
            self.names,
            self.maps[:, index],
            getattr(self, measure)[index],
            values=MEASURE_WORDS[measure],
            limits=(-1.0, 1.0) if measure == "rank_correlation" else (0.0, 1.0),
            dark=dark,
        )

    def difference_figure(
        self, pairs: Sequence[Sequence[str]], *, index: int = 0, dark: bool = False
    ) -> go.Figure:
        """Draw the shares of each pair's first map minus those of its second, for one item."""
        from attnlib.viz.comparing import maps_figure

        if not pairs:
            raise InputError("difference_figure needs at least one pair of names")
        self._check_item(index)
        wrong = [one for one in pairs if isinstance(one, str) or len(one) != 2]
        if wrong:
            raise InputError(f"difference_figure takes pairs of names, got {wrong[0]!r}")
        differences = torch.stack([self.difference(first, second)[index] for first, second in pairs])
        names = [f"{first}<br>minus {second}" for first, second in pairs]
        return maps_figure(names, differences, values="difference", columns=4, dark=dark)

    def _check_item(self, index: int) -> None:
        size = self.maps.shape[1]
        if not -size <= index < size:
            raise InputError(f"there is no item {index}: the batch holds {size}")

    def _place(self, name: str) -> int:
        if name not in self.names:
            raise InputError(f"{name!r} is not compared here; compared: {', '.join(self.names)}")
        return self.names.index(name)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.names)}; top {self.top} of {self.maps[0, 0].numel()})"


def compare(
    what: Any,
    *more: Relevance | AttentionRecord,
    methods: Sequence[Any] | Mapping[str, Any] | None = None,
    layers: Indices | None = None,
    query: Any = None,
    top: float | int = 0.1,
    without_identity: bool = False,
) -> Comparison:
    """Compare maps: of methods, layers, models or pictures.

    Parameters
    ----------
    what : name -> Relevance, or a sequence of Relevance; or a record, whose methods or layers are
        compared; or name -> record (models, pictures), to which one method is applied; or one
        Relevance, whose items are compared with each other.
    *more : further relevances or records: ``compare(one, other)`` is ``compare([one, other])``.
    methods : for records: names or (name, options), or label -> one of these; options may hold a query
        of their own. Default: a handful that the record can serve; for several records the first one given,
        else rollout.
    layers : for one record: compare these layers, by one method (the first of ``methods``, else raw).
    query : for records, as in ``explain``; for the methods that take one.
    top : share of the patches that count as the strongest.
    without_identity : leave out what stands in a map only because the method starts from the query.

    Returns
    -------
    Pairwise agreement per item. Maps on different grids, or over different cut-outs of a picture, are
    brought to the coarsest grid over what all of them show, keeping their mass.

    Raises
    ------
    InputError
        If fewer than two maps are given, or batch sizes differ.
    """
    if isinstance(top, bool) or not isinstance(top, Real) or not 0 < top <= 1:
        raise InputError(f"top={top!r} must be a share of the patches, above 0 and at most 1")
    given = _relevances((what, *more) if more else what, methods, layers, query)
    if len(given) < 2:
        raise InputError(f"a comparison needs at least two maps, got {len(given)}")
    sizes = {name: one.batch_size for name, one in given.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"the maps have different batch sizes: {sizes}")
    every = [name for name, one in given.items() if one.scores.dim() == 3]
    if every:
        raise InputError(f"{', '.join(every)}: maps of all queries cannot be compared; choose one query")
    shares, values, notes = on_common_grid(given, without_identity=without_identity)
    count = max(1, math.ceil(top * shares[0, 0].numel()))
    flat = shares.flatten(2).transpose(0, 1)
    ranks = _rank_correlation(values.flatten(2).transpose(0, 1))
    if bool(ranks.isnan().any()):
        notes = (
            *notes,
            "a map whose patches are all equal has no order: its rank correlation is not a number",
        )
    return Comparison(
        tuple(given), shares, ranks, _top_overlap(flat, count), _mass_overlap(flat), count, notes
    )


def _relevances(
    what: Any, methods: Sequence[Any] | Mapping[str, Any] | None, layers: Indices | None, query: Any
) -> dict[str, Relevance]:
    if isinstance(what, AttentionRecord):
        if layers is not None:
            label, (name, options) = next(iter(_calls(methods or ["raw"]).items()))
            return {
                f"{label}, layer {i}": _explained(what, name, query, {**options, "layers": i})
                for i in whole_numbers(layers, "layers")
            }
        calls = _calls(methods if methods is not None else _able(what))
        return {label: _explained(what, name, query, options) for label, (name, options) in calls.items()}
    if isinstance(what, Relevance):
        return {f"item {i}": what.item(i) for i in range(what.batch_size)}
    if isinstance(what, Mapping):
        named = {str(name): one for name, one in what.items()}
    elif isinstance(what, Sequence) and not isinstance(what, str):
        named = {}
        for one in what:
            base = getattr(one, "method", "map")
            label = base if base not in named else f"{base} {len(named)}"
            named[label] = one
    else:
        raise InputError(f"compare takes relevances or records, got {type(what).__name__}")
    found = {}
    for name, one in named.items():
        if isinstance(one, AttentionRecord):
            _, (chosen, options) = next(iter(_calls(methods or ["rollout"]).items()))
            one = _explained(one, chosen, query, options)
        if not isinstance(one, Relevance):
            raise InputError(f"{name}: expected a Relevance or a record, got {type(one).__name__}")
        found[name] = one
    return found


def _explained(record: AttentionRecord, name: str, query: Any, options: Mapping[str, Any]) -> Relevance:
    asked = query if METHODS[name].answers_query(options) else None
    return explain(record, name, **{"query": asked, **options})


def _calls(methods: Sequence[Any] | Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return label -> method and options; what has no label is called by its method."""
    if isinstance(methods, str):
        methods = [methods]
    if not isinstance(methods, Mapping | Sequence):
        raise InputError(f"methods are names, got {type(methods).__name__}")
    labelled = methods.items() if isinstance(methods, Mapping) else [(None, one) for one in methods]
    calls: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for label, one in labelled:
        name, options = _call(one)
        base = name if label is None else str(label)
        calls[base if base not in calls else f"{base} {len(calls)}"] = (name, options)
    if not calls:
        raise InputError("methods is empty: None means a handful that the record can serve")
    return calls


def _call(one: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(one, str):
        _ = METHODS[one]
        return one, {}
    if isinstance(one, tuple | list) and len(one) == 2 and isinstance(one[1], Mapping):
        _ = METHODS[one[0]]
        return one[0], one[1]
    raise InputError(f"a method to compare is a name or (name, options), got {one!r}")


def _able(record: AttentionRecord) -> list[str]:
    """Return the default methods whose needs the record meets."""
    chosen = []
    for name in _METHODS:
        if METHODS[name].family == "baseline" and name == "centre" and record.layout.grid is None:
            continue
        request = Request(record, method=name)
        if not any(request.lacks(need) for need in METHODS[name].needs):
            chosen.append(name)
    return chosen


def _rank_correlation(flat: Float[Tensor, "batch map patch"]) -> Float[Tensor, "batch map map"]:
    ranks = mean_ranks(flat)
    centred = ranks - ranks.mean(dim=-1, keepdim=True)
    length = centred.norm(dim=-1)
    product = centred @ centred.transpose(-1, -2)
    scale = length[:, :, None] * length[:, None, :]
    return torch.where(scale > 0, product / torch.where(scale > 0, scale, 1.0), torch.nan).clamp(-1, 1)


def _top_overlap(flat: Float[Tensor, "batch map patch"], count: int) -> Float[Tensor, "batch map map"]:
    """Return the share of the strongest patches that both have; patches that tie share the last places."""
    last = flat.sort(dim=-1, descending=True).values[..., count - 1 : count]
    above, equal = (flat > last).to(flat), (flat == last).to(flat)
    left = count - above.sum(dim=-1, keepdim=True)
    strongest = above + equal * left / equal.sum(dim=-1, keepdim=True)
    return torch.minimum(strongest[:, :, None], strongest[:, None, :]).sum(dim=-1) / count


def _mass_overlap(flat: Float[Tensor, "batch map patch"]) -> Float[Tensor, "batch map map"]:
    return torch.minimum(flat[:, :, None], flat[:, None, :]).sum(dim=-1)
