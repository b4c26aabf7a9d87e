"""Measuring methods on one trained model: what the rows of the scoreboard are made of."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnlib.errors import AttnlibError, InputError
from attnlib.evaluate.artifacts import artifact_patches, artifact_share, hot_background, token_norms
from attnlib.evaluate.baselines import BASELINES, baseline_maps
from attnlib.evaluate.localisation import (
    average_precision,
    coverage,
    grid_pointing,
    iou,
    mass_inside,
    pointing_game,
)
from attnlib.evaluate.perturbation import CHEFER_FRACTIONS, Curves, deletion, insertion
from attnlib.evaluate.randomisation import randomised, similarity, stages
from attnlib.evaluate.scenes import CLASSES
from attnlib.evaluate.scoreboard import Scoreboard
from attnlib.evaluate.steadiness import head_agreement, noisy_copies, relative_change
from attnlib.evaluate.trials import (
    Trials,
    grid_trials,
    maps_of_methods,
    needs_of,
    scene_trials,
    shortcut_trials,
)

if TYPE_CHECKING:
    from attnlib.models import LoadedModel

__all__ = ["measure_model", "rows_of"]

_VERSION = "attnlib.measuring/1"
_RADIUS = 0.02
_OFTEN = 0.05  # share of scenes: norms spread by chance have an outlier in one of 200 scenes or so


def measure_model(
    loaded: LoadedModel,
    methods: Mapping[str, Mapping[str, Any]] | Sequence[str] | None = None,
    *,
    count: int = 200,
    checks: int = 24,
    slow: Mapping[str, int] | None = None,
    seed: int = 2,
    shortcut: bool = False,
    twin: LoadedModel | None = None,
    baselines: bool = True,
    cache: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Scoreboard:
    """Measure methods and baselines on one trained model.

    Methods that need the same capture share it, and all measures share the maps.

    Parameters
    ----------
    loaded : one of the models trained on scenes.
    methods : names, or row name -> options (``{"rollout from 2": {"method": "rollout", "start_layer": 2}}``);
        all of METHODS if omitted.
    count : scenes for localisation and perturbation.
    checks : scenes for randomisation, label, stability: each needs the maps again.
    slow : row name -> scenes for everything that needs more maps than the first one per scene (grid and
        checks), for rows too slow to repeat them on all. Their cells say so by their count.
    seed : of the scenes; the models were trained on seed 1.
    shortcut : ask for the star in scenes with a watermark, whose mask is the truth.
    twin : the same architecture trained on permuted labels; with it the label randomisation test is made.
    baselines : also measure the maps that know nothing.
    cache : folder in which finished rows are kept; the same model, scenes and options are not repeated.
    progress : called with a line for every row.

    Returns
    -------
    The values of every scene. Methods that refuse are listed with their reason.
    """
    if count < 2 or checks < 2:
        raise InputError(f"a scoreboard needs at least two scenes, got count={count}, checks={checks}")
    wanted = rows_of(methods)
    fewer = dict(slow or {})
    trials = shortcut_trials(loaded, count, seed=seed) if shortcut else scene_trials(loaded, count, seed=seed)
    grids = None if shortcut else grid_trials(loaded, count, seed=seed)
    bench = _Bench(trials, grids, min(checks, count), fewer, seed, twin)
    tell = progress or (lambda _: None)
    values: dict[tuple[str, str, str], Tensor] = {}
    seconds: dict[tuple[str, str], float] = {}
    refusals: dict[tuple[str, str], str] = {}
    kept = _Kept(cache, bench, count)
    for name in BASELINES if baselines else ():
        row = kept.get(f"baseline/{name}")
        if row is None:
            row = kept.put(f"baseline/{name}", bench.baseline(name))
        values |= {(loaded.name, name, measure): value for measure, value in row.items()}
        tell(f"{loaded.name}: {name}")
    for group in _groups(wanted):
        start = time.perf_counter()
        finished = {name: kept.get(_key(name, options)) for name, options in group.items()}
        missing = {name: group[name] for name, row in finished.items() if row is None}
        rows, errors = bench.measured(missing) if missing else ({}, {})
        for name, row in rows.items():
            finished[name] = kept.put(_key(name, group[name]), row)
        for name, error in errors.items():
            refusals[loaded.name, name] = f"{type(error).__name__}: {error}"
            tell(f"{loaded.name}: {name} refused: {error}")
        for name, row in finished.items():
            if row is None:
                continue
            (spent,) = row["seconds"].tolist()
            seconds[loaded.name, name] = spent
            values |= {(loaded.name, name, key): value for key, value in row.items() if key != "seconds"}
        done = ", ".join(name for name, row in finished.items() if row is not None)
        tell(f"{loaded.name}: {done or 'nothing'}, {time.perf_counter() - start:.0f} s")
    about = {
        "scenes": count,
        "scenes_for_checks": min(checks, count),
        "scene_seed": seed,
        "confidence": 0.95,
        "shortcut": shortcut,
        "outlying_patches": {loaded.name: bench.outliers},
    }
    return Scoreboard(values, seconds, refusals, about)


@dataclass(eq=False)
class _Bench:
    """One model with its trials, and what all rows share."""

    trials: Trials
    grids: Trials | None
    checks: int
    slow: Mapping[str, int]
    seed: int
    twin: LoadedModel | None

    @functools.cached_property
    def grid(self) -> tuple[int, int]:
        grid = self.trials.part(0, 1).capture(internals=False, gradients=False).layout.grid
        if grid is None:
            raise InputError(f"{self.trials.loaded.name} has no patch grid")
        return grid

    @functools.cached_property
    def covered(self) -> Tensor:
        """How much of every patch anything covers."""
        return coverage(self.trials.things, self.grid)

    @functools.cached_property
    def outlying(self) -> Tensor:
        """Patches whose final norm is an outlier of their picture."""
        layout = self.trials.part(0, 1).capture(internals=False, gradients=False).layout
        norms = [
            token_norms(part.loaded.model, part.inputs(), layout)
            for part in (self.trials.part(i, i + 50) for i in range(0, len(self.trials), 50))
        ]
        return artifact_patches(torch.cat(norms))

    @functools.cached_property
    def unused(self) -> Tensor:
        """Outlying patches that show nothing; none at all where they are as rare as chance makes them."""
        unused = self.outlying & (self.covered == 0)
        often = float(unused.flatten(1).any(dim=1).float().mean()) >= _OFTEN
        return unused if often else torch.zeros_like(unused)

    @property
    def outliers(self) -> dict[str, float]:
        """Share of patches with an outlying norm, and how many of these show something."""
        area = float(self.outlying.float().mean())
        shown = (self.outlying & (self.covered > 0)).sum() / self.outlying.sum().clamp(min=1)
        return {"area": round(area, 5), "on_things": round(float(shown), 5)}

    def baseline(self, name: str) -> dict[str, Tensor]:
        maps = baseline_maps(name, self.trials.pixel_values, self.grid, seed=self.seed)
        row = self._map_values(self.trials, maps)
        if self.grids is not None:
            maps = baseline_maps(name, self.grids.pixel_values, self.grid, seed=self.seed + 1)
            row["grid_pointing"] = grid_pointing(maps, self.grids.masks)
        return row

    def measured(
        self, rows: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, AttnlibError]]:
        """Measure rows that share captures; the errors are those of methods that refuse."""
        first = maps_of_methods(self.trials.part(0, 1), rows)  # the first run also loads what methods need
        able = {name: options for name, options in rows.items() if name not in first.errors}
        found = maps_of_methods(self.trials, able)
        errors = {**first.errors, **found.errors}
        measured = {name: self._map_values(self.trials, maps) for name, maps in found.maps.items()}
        for name, spent in found.seconds.items():
            measured[name]["seconds"] = torch.tensor([spent], dtype=torch.float64)
        for number in sorted({self.slow.get(name, 0) for name in found.maps}):
            chosen = {name: able[name] for name in found.maps if self.slow.get(name, 0) == number}
            if self.grids is not None:
                grids = self.grids.part(0, min(number, len(self.grids)) if number else len(self.grids))
                for name, maps in maps_of_methods(grids, chosen).maps.items():
                    measured[name]["grid_pointing"] = grid_pointing(maps, grids.masks)
            repeats = min(number, self.checks) if number else self.checks
            originals = {name: found.maps[name][:repeats] for name in chosen}
            for name, row in self._check_values(self.trials.part(0, repeats), chosen, originals).items():
                measured[name] |= row
        return measured, errors

    def _map_values(self, trials: Trials, maps: Tensor) -> dict[str, Tensor]:
        """Return what can be measured on finished maps; hidden patches are black, as in Chefer's protocol."""
        black: dict[str, Any] = {"fill": -1.0, "fractions": CHEFER_FRACTIONS[::2]}
        down = deletion(trials.logits, trials.pixel_values, maps, **black)
        up = insertion(trials.logits, trials.pixel_values, maps, **black)
        fall, rise = (Curves(c.fractions, trials.chances(c.scores)).area for c in (down, up))
        unused, none = self.unused, torch.tensor(float("nan"))
        row = {
            "mass_inside": mass_inside(maps, trials.masks),
            "pointing": pointing_game(maps, trials.masks),
            "iou": iou(maps, trials.masks),
            "average_precision": average_precision(maps, trials.masks),
            "deletion": fall,
            "insertion": rise,
            "faithfulness": rise - fall,
            "hot_background": hot_background(maps, self.covered),
            "artifact_share": artifact_share(maps, unused).where(unused.flatten(1).any(dim=1), none),
        }
        if trials.says:
            for name, curves in (("positive_perturbation", down), ("negative_perturbation", up)):
                row[name] = Curves(curves.fractions, trials.hits(curves.scores)).area
        return row

    def _check_values(
        self, trials: Trials, rows: Mapping[str, Mapping[str, Any]], originals: Mapping[str, Tensor]
    ) -> dict[str, dict[str, Tensor]]:
        """Return what needs the maps again: other weights, another label, a noisy picture, single heads."""
        (noisy,) = noisy_copies(trials.pixel_values, radius=_RADIUS, samples=1, seed=self.seed)
        others = [CLASSES[(CLASSES.index(target) + 3) % len(CLASSES)] for target in trials.targets]
        changed = {
            "noise": maps_of_methods(trials.with_pixels(noisy), rows).maps,
            "label": maps_of_methods(trials.with_targets(others), rows).maps,
        }
        model = trials.loaded.model
        with randomised(model, stages(model), seed=self.seed):
            changed["weights"] = maps_of_methods(trials, rows).maps
        if self.twin is not None:
            changed["twin"] = maps_of_methods(replace(trials, loaded=self.twin), rows).maps
        found: dict[str, dict[str, Tensor]] = {name: {} for name in rows}
        for name, original in originals.items():
            # a map without any contrast has nothing that could depend on weights or label
            empty = original.amax(dim=(-2, -1)) == original.amin(dim=(-2, -1))
            again = {kind: maps[name] for kind, maps in changed.items() if name in maps}
            if "noise" in again:
                found[name]["stability"] = similarity(original, again["noise"])
                found[name]["sensitivity"] = relative_change(original, [again["noise"]])
            for kind, measure in _AGAIN.items():
                if kind in again:
                    alike = similarity(original, torch.nan_to_num(again[kind]))
                    alike = alike.abs() if kind == "weights" else alike
                    found[name][measure] = alike.where(~empty, torch.tensor(float("nan")))
            if rows[name]["method"] == "raw":
                found[name]["head_agreement"] = head_agreement(_head_maps(trials, rows[name]))
        return found


_AGAIN = {"label": "label_matters", "weights": "weights_matter", "twin": "label_randomisation"}


def _head_maps(trials: Trials, options: Mapping[str, Any]) -> Tensor:
    """Return raw attention of each head alone, [batch, head, height, width]."""
    layer = trials.part(0, 1).record(internals=False, gradients=False).layers[-1]
    rows = {str(head): {**options, "heads": head} for head in range(layer.num_heads)}
    return torch.stack(list(maps_of_methods(trials, rows).maps.values()), dim=1)


def rows_of(
    methods: Mapping[str, Mapping[str, Any]] | Sequence[str] | None,
) -> dict[str, dict[str, Any]]:
    """Return row name -> {"method": name, **options}.

    Raises
    ------
    InputError
        If the selection is empty.
    """
    from attnlib.methods import METHODS

    if methods is None:
        methods = list(METHODS)
    if isinstance(methods, Mapping):
        return {name: {"method": name, **options} for name, options in methods.items()}
    if not methods:
        raise InputError("methods is an empty selection; None means all")
    return {name: {"method": name} for name in methods if name not in BASELINES}


def _groups(rows: Mapping[str, dict[str, Any]]) -> list[dict[str, dict[str, Any]]]:
    """Return the rows in groups that share a capture."""
    groups: dict[tuple[bool, bool], dict[str, dict[str, Any]]] = {}
    for name, options in rows.items():
        groups.setdefault(needs_of(options["method"]), {})[name] = options
    return list(groups.values())


class _Kept:
    """Finished rows in a folder; without one, nothing is kept."""

    def __init__(self, folder: str | Path | None, bench: _Bench, count: int) -> None:
        self.folder = None if folder is None else Path(folder)
        self.setting = ""
        if self.folder is not None:
            twin = "" if bench.twin is None else _fingerprint(bench.twin)
            slow = json.dumps(dict(bench.slow), sort_keys=True)
            shortcut = bench.grids is None
            model = _fingerprint(bench.trials.loaded)
            self.setting = f"{model}/{count}/{bench.checks}/{slow}/{bench.seed}/{shortcut}/{twin}"

    def get(self, key: str) -> dict[str, Tensor] | None:
        path = self._path(key)
        return torch.load(path, weights_only=True) if path is not None and path.exists() else None

    def put(self, key: str, row: dict[str, Tensor]) -> dict[str, Tensor]:
        path = self._path(key)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(row, path)
        return row

    def _path(self, key: str) -> Path | None:
        if self.folder is None:
            return None
        name = hashlib.sha256(f"{_VERSION}/{self.setting}/{key}".encode()).hexdigest()[:24]
        return self.folder / f"{name}.pt"


def _key(name: str, options: Mapping[str, Any]) -> str:
    code = _sources(str(options["method"]))
    return f"{code}/{json.dumps([name, options], sort_keys=True, default=str)}"


def _fingerprint(loaded: LoadedModel) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(loaded.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@functools.cache
def _sources(method: str) -> str:
    """Return a digest of the code of a method and of the measures, so that changed code is run anew.

    What methods share (capture, propagation) is not in it: empty the cache after changing that.
    """
    from attnlib.methods import METHODS

    digest = hashlib.sha256(
        inspect.getsource(inspect.getmodule(METHODS[method].run) or METHODS[method].run).encode()
    )
    names = ("localisation", "perturbation", "randomisation", "scenes", "questions", "trials", "measuring")
    for name in names:
        digest.update(Path(str(files("attnlib.evaluate"))).joinpath(f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]
