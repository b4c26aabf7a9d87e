"""Measure every method on every trained model: ``python benchmarks/scoreboard.py --package``.

Writes the table (scoreboard.md), the figure (scoreboard.png) and the numbers that the package ships
(attnlib/evaluate/scoreboard.json). Two processes with one thread each; at most half an hour on two
cores. Finished rows are kept in ``--cache``, so that a run can be continued.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scoreboard_page import TEXT, markdown, ranking

from attnlib import load_model
from attnlib.evaluate import BASELINES, measure_model, measure_sentences
from attnlib.evaluate.measures import MEASURES
from attnlib.evaluate.scoreboard import Scoreboard
from attnlib.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
MODELS = (
    "scenes-vit",
    "scenes-mean",
    "scenes-registers",
    "scenes-pair",
    "scenes-captioner",
    "scenes-shortcut",
    TEXT,
)
TWINS = {"scenes-vit": "scenes-permuted"}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "rollout from 1": {"method": "rollout", "start_layer": 1},
    "rollout from 2": {"method": "rollout", "start_layer": 2},
    "generic_relevance from 1": {"method": "generic_relevance", "start_layer": 1},
    "generic_relevance from 2": {"method": "generic_relevance", "start_layer": 2},
}
SLOW: Mapping[str, int] = {"flow": 12, "integrated_gradients": 24, "decompx": 24}
"""Rows that take from 0.1 to 1 s a picture, and their scenes for grid and checks."""


def rows() -> dict[str, dict[str, Any]]:
    """Return every method with its defaults, and the choices of a start layer."""
    plain = {name: {} for name in METHODS if name not in BASELINES}
    return {**plain, **{name: dict(options) for name, options in VARIANTS.items()}}


@dataclass(frozen=True)
class Job:
    """Some rows of one model, measured by one process."""

    model: str
    rows: dict[str, dict[str, Any]]
    first: bool
    count: int
    checks: int
    seed: int
    cache: Path | None

    def run(self) -> Scoreboard:
        """Measure the rows; the first job of a model also measures the baselines."""
        torch.set_num_threads(1)
        if self.model == TEXT:
            return measure_sentences(load_model(TEXT), self.rows, count=self.count, seed=self.seed)
        twin = TWINS.get(self.model)
        return measure_model(
            load_model(self.model),
            self.rows,
            count=self.count,
            checks=self.checks,
            slow=SLOW,
            seed=self.seed,
            shortcut=self.model == "scenes-shortcut",
            twin=None if twin is None else load_model(twin),
            baselines=self.first,
            cache=self.cache,
            progress=lambda line: print(line, flush=True),
        )


def jobs(options: argparse.Namespace) -> list[Job]:
    """Return the jobs, the longest first."""
    every = rows()
    slowest = ["flow", "integrated_gradients"]
    parts = [([name], False) for name in slowest] + [([n for n in every if n not in slowest], True)]
    words = [n for n in METHODS if n not in BASELINES]
    text = [(model, words, True) for model in options.models if model == TEXT]
    pictures = [model for model in options.models if model != TEXT]
    return [
        Job(
            model,
            {name: every[name] for name in names},
            first,
            options.count,
            options.checks,
            options.seed,
            options.cache,
        )
        for model, names, first in [*text, *((m, names, first) for names, first in parts for m in pictures)]
    ]


def measure(options: argparse.Namespace) -> Scoreboard:
    """Run all jobs and put their boards together."""
    values: dict = {}
    seconds: dict = {}
    refusals: dict = {}
    outlying: dict = {}
    about: dict = {}
    start = time.time()
    with ProcessPoolExecutor(options.workers) as pool:
        running = {pool.submit(job.run): job for job in jobs(options)}
        for done in as_completed(running):
            job, board = running[done], done.result()
            print(f"[{time.time() - start:.0f} s] {job.model}: {len(job.rows)} rows done", flush=True)
            values |= board.values
            seconds |= board.seconds
            refusals |= board.refusals
            outlying |= board.about.get("outlying_patches", {})
            about |= board.about
    order = {model: i for i, model in enumerate(options.models)}
    values = dict(sorted(values.items(), key=lambda item: (order[item[0][0]], *item[0][1:])))
    about |= {
        "minutes": round((time.time() - start) / 60, 1),
        "models": list(options.models),
        "outlying_patches": outlying,
        "fewer_scenes": dict(SLOW),
        "torch": torch.__version__,
        "machine": machine(options.workers),
    }
    about.pop("shortcut", None)
    return Scoreboard(values, seconds, refusals, about)


def machine(workers: int) -> str:
    """Return processor, cores and load, for whoever compares times."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1] for line in info.read_text().splitlines() if "model name" in line]
        name = names[0].strip() if names else name
    cores, load = os.cpu_count(), os.getloadavg()[0]
    return f"{name}, {cores} cores, {workers} processes of one thread each, load at the end {load:.1f}"


def figure(board: Scoreboard, target: Path) -> None:
    """Draw faithfulness and mass inside with intervals, one panel per model."""
    import matplotlib.pyplot as plt

    models = [model for model in board.about["models"] if model != TEXT]
    plotted, axes = plt.subplots(
        1, len(models), figsize=(4 * len(models), 7), sharey=True, layout="constrained"
    )
    methods = [m for m, _ in ranking(board)][::-1] + list(BASELINES)
    methods = list(BASELINES)[::-1] + [m for m in methods if m not in BASELINES]
    for axis, model in zip(axes, models, strict=True):
        for column, colour, shift in (("faithfulness", "#3b528b", 0.15), ("mass_inside", "#5dc863", -0.15)):
            for place, method in enumerate(methods):
                value = board.values.get((model, method, column))
                if value is None or not bool(torch.isfinite(value).any()):
                    continue
                own = board.estimate(model, method, column)
                axis.plot([own.low, own.high], [place + shift] * 2, color=colour, lw=2)
                label = MEASURES[column].title if place == 0 else None
                axis.plot(own.value, place + shift, "o", color=colour, ms=4, label=label)
        axis.axvline(0, color="0.7", lw=0.8)
        axis.set_title(model, fontsize=10)
        axis.set_yticks(range(len(methods)), methods, fontsize=8)
        axis.grid(axis="x", color="0.92")
    axes[0].legend(loc="lower right", fontsize=8)
    plotted.suptitle(
        "Known truth: insertion minus deletion, and mass on the thing (95 % intervals over scenes)"
    )
    plotted.savefig(target, dpi=80)
    plt.close(plotted)


def main() -> None:
    """Measure, write table, figure and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="scenes for localisation and perturbation")
    parser.add_argument("--checks", type=int, default=50, help="scenes for randomisation and stability")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks")
    parser.add_argument(
        "--package", action="store_true", help="also replace attnlib/evaluate/scoreboard.json"
    )
    options = parser.parse_args()
    fresh = options.cache is None or not any(options.cache.glob("*.pt"))
    start = time.time()
    board = measure(options)
    board.to_frame()  # the intervals are a part of the measuring; they are kept
    minutes = (time.time() - start) / 60
    options.output.mkdir(parents=True, exist_ok=True)
    choice = options.output / "choice.md"
    command = "python benchmarks/scoreboard.py --package"
    spent = f"{minutes:.0f} minutes" if fresh else "a part of the rows read from a cache"
    text = markdown(
        board, command, spent, choice.read_text().strip() if choice.exists() else "Not written yet."
    )
    (options.output / "scoreboard.md").write_text(text)
    board.save(
        options.output / "scoreboard.json"
        if not options.package
        else ROOT / "attnlib/evaluate/scoreboard.json"
    )
    figure(board, options.output / "scoreboard.png")
    print(json.dumps(ranking(board), indent=1))
    print(f"{minutes:.1f} minutes")


if __name__ == "__main__":
    main()
