"""The scoreboard: every method on every trained model by every measure, on scenes with known truth."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnlib.errors import AttnlibError, InputError
from attnlib.evaluate.artifacts import hot_background
from attnlib.evaluate.baselines import BASELINES, baseline_maps
from attnlib.evaluate.localisation import (
    average_precision,
    coverage,
    grid_pointing,
    iou,
    mass_inside,
    pointing_game,
)
from attnlib.evaluate.measures import MEASURES
from attnlib.evaluate.perturbation import CHEFER_FRACTIONS, Curves, deletion, insertion
from attnlib.evaluate.randomisation import another_label, randomised, similarity, stages
from attnlib.evaluate.scenes import CLASSES
from attnlib.evaluate.statistics import Estimate, mean_estimate, paired_difference
from attnlib.evaluate.steadiness import sensitivity, stability
from attnlib.evaluate.trials import Trials, grid_trials, maps_of_method, scene_trials, shortcut_trials

if TYPE_CHECKING:
    import pandas as pd

    from attnlib.models import LoadedModel

__all__ = ["Scoreboard", "measure_model", "shipped_scoreboard"]

_FORMAT = "attnlib.scoreboard/1"


@dataclass(frozen=True, eq=False)
class Scoreboard:
    """Values per model, method and measure, one per scene.

    Parameters
    ----------
    values : (model, method, measure) -> one value per scene, NaN where there is none.
    seconds : (model, method) -> seconds per picture for the map alone.
    refusals : (model, method) -> why a method could not be used.
    about : scenes, seeds, versions.
    """

    values: Mapping[tuple[str, str, str], Tensor]
    seconds: Mapping[tuple[str, str], float]
    refusals: Mapping[tuple[str, str], str]
    about: Mapping[str, Any]

    def estimate(self, model: str, method: str, measure: str) -> Estimate:
        """Return mean and interval of one cell."""
        return mean_estimate(self.values[model, method, measure])

    def against(self, model: str, method: str, other: str, measure: str) -> Estimate:
        """Return the paired difference of two methods on the scenes that both have a value for."""
        first, second = self.values[model, method, measure], self.values[model, other, measure]
        count = min(len(first), len(second))
        return paired_difference(first[:count], second[:count])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per model, method and measure, with intervals and the difference from noise."""
        import pandas as pd

        rows = []
        for (model, method, measure), value in self.values.items():
            if not bool(torch.isfinite(value).any()):
                continue
            own = mean_estimate(value)
            row = {"model": model, "method": method, "measure": measure, **_ends("", own)}
            noise = _noise_name(measure)
            if method != noise and (model, noise, measure) in self.values:
                row |= _ends("above_noise_", self.against(model, method, noise, measure))
            rows.append(row)
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> Path:
        """Write means, intervals, times and refusals as JSON (without the value of each scene)."""
        frame = self.to_frame()
        cells = [{k: _number(v) for k, v in row.items() if v == v} for row in frame.to_dict(orient="records")]
        seconds = [{"model": m, "method": k, "seconds": round(v, 5)} for (m, k), v in self.seconds.items()]
        refused = [{"model": m, "method": k, "why": v} for (m, k), v in self.refusals.items()]
        content = {
            "format": _FORMAT,
            "about": dict(self.about),
            "cells": cells,
            "seconds": seconds,
            "refused": refused,
        }
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = json.dumps(content, separators=(",", ":")).replace("},{", "},\n{")
        target.write_text(lines + "\n")
        return target


def measure_model(
    loaded: LoadedModel,
    methods: Mapping[str, Mapping[str, Any]] | Sequence[str] | None = None,
    *,
    count: int = 200,
    checks: int = 24,
    seed: int = 2,
    shortcut: bool = False,
    seconds_per_method: float = 60.0,
    cache: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Scoreboard:
    """Measure methods and baselines on one trained model.

    Parameters
    ----------
    loaded : one of the models trained on scenes.
    methods : names, or row name -> options (``{"rollout from 2": {"method": "rollout", "start_layer": 2}}``);
        all of METHODS if omitted.
    count : scenes for localisation and perturbation.
    checks : scenes for randomisation, label, stability: each needs the maps again.
    seed : of the scenes; the models were trained on seed 1.
    shortcut : ask for the star in scenes with a watermark, whose mask is the truth.
    seconds_per_method : a method so slow that ``count`` maps would take longer gets fewer scenes, and its
        cells say so by their count.
    cache : folder in which finished rows are kept; the same model, scenes and options are not repeated.
    progress : called with a line for every row.

    Returns
    -------
    The values of every scene. Methods that refuse are listed with their reason.
    """
    if count < 2 or checks < 2:
        raise InputError(f"a scoreboard needs at least two scenes, got count={count}, checks={checks}")
    wanted = _rows(methods)
    trials = shortcut_trials(loaded, count, seed=seed) if shortcut else scene_trials(loaded, count, seed=seed)
    grids = None if shortcut else grid_trials(loaded, count, seed=seed)
    setting = f"{_fingerprint(loaded)}/{count}/{checks}/{seed}/{shortcut}/{seconds_per_method:g}"
    values: dict[tuple[str, str, str], Tensor] = {}
    seconds: dict[tuple[str, str], float] = {}
    refusals: dict[tuple[str, str], str] = {}
    grid = _grid_of(trials)
    for name in BASELINES:
        kept = _cached(cache, f"{setting}/baseline/{name}")
        if kept is not None and kept.exists():
            row = torch.load(kept, weights_only=True)
        else:
            row = _map_values(trials, baseline_maps(name, trials.pixel_values, grid, seed=seed))
            if grids is not None:
                maps = baseline_maps(name, grids.pixel_values, grid, seed=seed + 1)
                row["grid_pointing"] = grid_pointing(maps, grids.masks)
            _keep(kept, row)
        values |= {(loaded.name, name, measure): value for measure, value in row.items()}
        _tell(progress, f"{loaded.name}: {name}")
    for row_name, options in wanted.items():
        code = _sources(options["method"])
        kept = _cached(
            cache, f"{setting}/{code}/{json.dumps([row_name, options], sort_keys=True, default=str)}"
        )
        start = time.perf_counter()
        try:
            if kept is not None and kept.exists():
                row, spent = torch.load(kept, weights_only=True)
            else:
                row, spent = _measure_row(
                    trials, grids, dict(options), count, checks, seed, seconds_per_method
                )
                _keep(kept, (row, spent))
        except AttnlibError as error:
            refusals[loaded.name, row_name] = f"{type(error).__name__}: {error}"
            _tell(progress, f"{loaded.name}: {row_name} refused: {error}")
            continue
        seconds[loaded.name, row_name] = spent
        values |= {(loaded.name, row_name, measure): value for measure, value in row.items()}
        _tell(progress, f"{loaded.name}: {row_name}, {time.perf_counter() - start:.0f} s")
    about = {
        "scenes": count,
        "scenes_for_checks": checks,
        "scene_seed": seed,
        "confidence": 0.95,
        "shortcut": shortcut,
    }
    return Scoreboard(values, seconds, refusals, about)


def shipped_scoreboard() -> dict[str, Any]:
    """Return the scoreboard that comes with the package: means, intervals and counts of every cell.

    Raises
    ------
    InputError
        If this build of the package has none.
    """
    source = files("attnlib.evaluate").joinpath("scoreboard.json")
    if not source.is_file():
        raise InputError("this build has no scoreboard.json; make one with benchmarks/scoreboard.py")
    return json.loads(source.read_text())


def _measure_row(
    trials: Trials,
    grids: Trials | None,
    options: dict[str, Any],
    count: int,
    checks: int,
    seed: int,
    limit: float,
) -> tuple[dict[str, Tensor], float]:
    maps_of_method(trials.part(0, 1), **options)  # the first run also loads what the method needs
    start = time.perf_counter()
    first = maps_of_method(trials.part(0, 2), **options)
    each = (time.perf_counter() - start) / len(first)
    affordable = min(count, max(2, int(limit / max(each, 1e-6))))
    part = trials.part(0, affordable)
    start = time.perf_counter()
    maps = maps_of_method(part, **options)
    spent = (time.perf_counter() - start) / len(part)
    row = _map_values(part, maps)
    if grids is not None:
        fewer = grids.part(0, affordable)
        row["grid_pointing"] = grid_pointing(maps_of_method(fewer, **options), fewer.masks)
    repeats = min(checks, max(2, int(limit / max(spent, 1e-6) / 8)))
    row |= _check_values(trials.part(0, repeats), options, seed)
    return row, spent


def _map_values(trials: Trials, maps: Tensor) -> dict[str, Tensor]:
    """Return what can be measured on finished maps; hidden patches are black, as in Chefer's protocol."""
    black: dict[str, Any] = {"fill": -1.0, "fractions": CHEFER_FRACTIONS[::2]}
    down = deletion(trials.logits, trials.pixel_values, maps, **black)
    up = insertion(trials.logits, trials.pixel_values, maps, **black)
    fall, rise = (Curves(c.fractions, trials.chances(c.scores)).area for c in (down, up))
    row = {
        "mass_inside": mass_inside(maps, trials.masks),
        "pointing": pointing_game(maps, trials.masks),
        "iou": iou(maps, trials.masks),
        "average_precision": average_precision(maps, trials.masks),
        "deletion": fall,
        "insertion": rise,
        "faithfulness": rise - fall,
        "hot_background": hot_background(maps, coverage(trials.things, (maps.shape[1], maps.shape[2]))),
    }
    if not trials.is_pair:
        for name, curves in (("positive_perturbation", down), ("negative_perturbation", up)):
            row[name] = Curves(curves.fractions, trials.hits(curves.scores)).area
    return row


def _check_values(trials: Trials, options: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """Return what needs the maps again: other weights, another label, a noisy picture."""

    def maps_of(pixels: Tensor) -> Tensor:
        from dataclasses import replace

        return maps_of_method(replace(trials, pixel_values=pixels), **options)

    def maps_for(labels: Tensor) -> Tensor:
        return maps_of_method(trials.with_targets([CLASSES[int(i)] for i in labels]), **options)

    original = maps_of(trials.pixel_values)
    model = trials.loaded.model
    with randomised(model, stages(model), seed=seed):
        other = torch.nan_to_num(maps_of(trials.pixel_values))
    own = torch.tensor([CLASSES.index(target) for target in trials.targets])
    # a map without any contrast has nothing that could depend on weights or label
    empty = original.amax(dim=(-2, -1)) == original.amin(dim=(-2, -1))
    unknown = torch.tensor(float("nan"))
    return {
        "weights_matter": similarity(original, other).abs().where(~empty, unknown),
        "label_matters": another_label(maps_for, own, (own + 3) % len(CLASSES)).where(~empty, unknown),
        "stability": stability(maps_of, trials.pixel_values, samples=1, seed=seed),
        "sensitivity": sensitivity(maps_of, trials.pixel_values, samples=1, seed=seed),
    }


def _rows(
    methods: Mapping[str, Mapping[str, Any]] | Sequence[str] | None,
) -> dict[str, dict[str, Any]]:
    from attnlib.methods import METHODS

    if methods is None:
        methods = list(METHODS)
    if isinstance(methods, Mapping):
        return {name: {"method": name, **options} for name, options in methods.items()}
    if not methods:
        raise InputError("methods is an empty selection; None means all")
    return {name: {"method": name} for name in methods if name not in BASELINES}


def _grid_of(trials: Trials) -> tuple[int, int]:
    record = trials.part(0, 1).capture(internals=False, gradients=False)
    grid = record.layout.grid
    if grid is None:
        raise InputError(f"{trials.loaded.name} has no patch grid")
    return grid


def _noise_name(measure: str) -> str:
    return "uniform" if measure in ("mass_inside", "grid_pointing") else "random"


def _ends(prefix: str, estimate: Estimate) -> dict[str, float]:
    return {
        f"{prefix}value": estimate.value,
        f"{prefix}low": estimate.low,
        f"{prefix}high": estimate.high,
        f"{prefix}count": estimate.count,
    }


def _number(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def _fingerprint(loaded: LoadedModel) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(loaded.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _cached(cache: str | Path | None, key: str) -> Path | None:
    if cache is None:
        return None
    return Path(cache) / f"{hashlib.sha256(f'{_FORMAT}/{key}'.encode()).hexdigest()[:24]}.pt"


def _keep(kept: Path | None, content: object) -> None:
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, kept)


@functools.cache
def _sources(method: str) -> str:
    """Return a digest of the code of a method and of the measures, so that changed code is run anew.

    What methods share (capture, propagation) is not in it: empty the cache after changing that.
    """
    from attnlib.methods import METHODS

    digest = hashlib.sha256(
        inspect.getsource(inspect.getmodule(METHODS[method].run) or METHODS[method].run).encode()
    )
    for name in ("localisation", "perturbation", "randomisation", "scenes", "trials", "scoreboard"):
        digest.update(Path(str(files("attnlib.evaluate"))).joinpath(f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]


def _tell(progress: Callable[[str], None] | None, line: str) -> None:
    if progress is not None:
        progress(line)


def direction(measure: str) -> int:
    """Return 1 where a higher value is better, -1 where a lower one is."""
    return 1 if MEASURES[measure].better == "higher" else -1
