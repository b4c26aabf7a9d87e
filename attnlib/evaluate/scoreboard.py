"""The scoreboard: every method on every trained model by every measure, on scenes with known truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnlib.errors import InputError
from attnlib.evaluate.measures import MEASURES
from attnlib.evaluate.statistics import Estimate, mean_estimate, paired_difference

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Scoreboard", "noise_name", "shipped_scoreboard"]

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
    _known: dict[tuple[str, ...], Estimate] = field(default_factory=dict, init=False, repr=False)

    def estimate(self, model: str, method: str, measure: str) -> Estimate:
        """Return mean and interval of one cell."""
        key = (model, method, measure)
        if key not in self._known:
            self._known[key] = mean_estimate(self.values[key])
        return self._known[key]

    def against(self, model: str, method: str, other: str, measure: str) -> Estimate:
        """Return the paired difference of two methods on the scenes that both have a value for."""
        key = (model, method, other, measure)
        if key not in self._known:
            first, second = self.values[model, method, measure], self.values[model, other, measure]
            count = min(len(first), len(second))
            self._known[key] = paired_difference(first[:count], second[:count])
        return self._known[key]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per model, method and measure, with intervals and the difference from noise."""
        import pandas as pd

        rows = []
        for (model, method, measure), value in self.values.items():
            if not bool(torch.isfinite(value).any()):
                continue
            own = self.estimate(model, method, measure)
            row = {"model": model, "method": method, "measure": measure, **_ends("", own)}
            noise = noise_name(measure)
            if method != noise and (model, noise, measure) in self.values:
                row |= _ends("above_noise_", self.against(model, method, noise, measure))
            rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        models, methods, measures = (len({key[place] for key in self.values}) for place in range(3))
        return (
            f"Scoreboard({models} models, {methods} rows, {measures} measures; {len(self.refusals)} refused)"
        )

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


def noise_name(measure: str) -> str:
    """Return the baseline that a measure is compared with: an even map for shares, else a random one."""
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


def direction(measure: str) -> int:
    """Return 1 where a higher value is better, -1 where a lower one is."""
    return 1 if MEASURES[measure].better == "higher" else -1
