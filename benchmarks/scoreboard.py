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
from statistics import fmean
from typing import Any

import torch

from attnlib import capture, explain, load_model
from attnlib.evaluate import artifact_patches, measure_model, measure_sentences, spike_share, token_norms
from attnlib.evaluate.measures import MEASURES
from attnlib.evaluate.scoreboard import Scoreboard, noise_name
from attnlib.methods import METHODS
from attnlib.picture import samples

ROOT = Path(__file__).resolve().parents[1]
TEXT = "agreement-bert"
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
BASELINES = ("uniform", "random", "centre", "edges")
COLUMNS = (
    "mass_inside",
    "pointing",
    "iou",
    "average_precision",
    "grid_pointing",
    "deletion",
    "insertion",
    "faithfulness",
    "positive_perturbation",
    "negative_perturbation",
    "weights_matter",
    "label_randomisation",
    "label_matters",
    "stability",
    "sensitivity",
    "head_agreement",
    "hot_background",
    "artifact_share",
)
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
    values = dict(sorted(values.items(), key=lambda item: order[item[0][0]]))
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


def markdown(board: Scoreboard, command: str, spent: str, choice: str) -> str:
    """Return the whole document."""
    lines = [
        "# Scoreboard: methods where the truth is known",
        "",
        f"Made by `{command}` ({spent}; {board.about['machine']}). Times per picture (ms, capture included) "
        "were taken in the same run.",
        "",
    ]
    lines += [
        "Scenes are generated, with exact masks, from a seed on which no model was trained; a scene "
        "counts if the model says the class that it is asked about. Values are means over scenes; the "
        "intervals (95 %, bootstrap over scenes) are in `attnlib/evaluate/scoreboard.json`. A "
        "`*` marks values whose paired "
        "difference from noise (an even map for mass and grid, a random map otherwise) has an interval "
        "without 0 in it, in the better direction. A column with a dagger (†) is **won by a constant map**: "
        'alone it is no merit. For `scenes-shortcut` the question is "star" and the truth is the watermark '
        "that the model reads instead. For `scenes-captioner` the question is the next word of the true "
        "caption, the target is that word's logit and the truth the thing it names: `raw` there is the last "
        "cross-attention, `generic_relevance` follows encoder and decoder, all other methods know one stream "
        "and read the encoder (those of attention alone: the mean of its patches). Arrows say which "
        "direction is better.",
        "",
        f"{board.about['scenes']} scenes per model; *grid* on as many grids; *random weights*, *random "
        f"labels*, *other label*, *stability*, *sensitivity* and *heads agree* on the first "
        f"{board.about['scenes_for_checks']}, because each needs the maps again. Too slow for that are "
        + ", ".join(f"`{name}` ({number})" for name, number in board.about["fewer_scenes"].items())
        + ": grid and these columns on that many. *random labels* compares with `scenes-permuted`, a twin of "
        "`scenes-vit` that learned permuted labels by heart; *heads agree* is about the attention itself and "
        "stands in the row `raw`.",
        "",
        "For `agreement-bert` the pictures are sentences: is the missing verb singular or plural? The truth is "
        "the subject, which alone decides; hidden words become the unknown word; the model's own marks are "
        "left out. More on text: [replays.md](replays.md).",
        "",
        "## The choice that follows",
        "",
        choice,
        "",
    ]
    lines += ["## The embedded pretrained model", "", *embedded_table(), ""]
    for model in board.about["models"]:
        lines += [f"## {model}", "", *_table(board, model), "", _outliers(board, model), ""]
        refused = {m: why for (name, m), why in board.refusals.items() if name == model}
        lines += [f"- `{m}` could not be used: {why}" for m, why in refused.items()] + [""]
    lines += ["## What the columns mean", ""]
    for measure in [MEASURES[column] for column in COLUMNS]:
        told = measure.sentence.replace(" {value}", " so much").replace("{value}", "So much")
        told = told.replace("{baseline}", "see the baselines")
        head = f"{measure.title}** ({measure.better} is better; a constant map: {measure.constant})"
        lines.append(f"- **{head}. {told}")
    return "\n".join(lines) + "\n"


def _table(board: Scoreboard, model: str) -> list[str]:
    methods = list(dict.fromkeys(m for name, m, _ in board.values if name == model))
    methods.sort(key=lambda m: -_mean(board, model, m, "faithfulness"))
    arrows = {"higher": "↑", "lower": "↓"}
    columns = [c for c in COLUMNS if any(_known(board, model, m, c) for m in methods)]
    heads = [
        f"{MEASURES[c].title} {arrows[MEASURES[c].better]}{'†' if MEASURES[c].constant_wins else ''}"
        for c in columns
    ]
    lines = [f"| method | {' | '.join(heads)} | ms | scenes |", "| --- |" + " ---: |" * (len(columns) + 2)]
    for method in methods:
        cells = [_cell(board, model, method, column) for column in columns]
        spent = board.seconds.get((model, method))
        count = board.estimate(model, method, "mass_inside").count
        name = f"*{method}*" if method in BASELINES else method
        lines.append(
            f"| {name} | {' | '.join(cells)} | {'' if spent is None else f'{spent * 1000:.0f}'} | {count} |"
        )
    return lines


def _cell(board: Scoreboard, model: str, method: str, measure: str) -> str:
    if not _known(board, model, method, measure):
        return ""
    noise = noise_name(measure)
    mark = ""
    if method not in (noise, "uniform") and (model, noise, measure) in board.values:
        gain = board.against(model, method, noise, measure)
        ahead = gain.low > 0 if MEASURES[measure].better == "higher" else gain.high < 0
        mark = "*" if ahead else ""
    return f"{_mean(board, model, method, measure):.2f}{mark}"


def _known(board: Scoreboard, model: str, method: str, measure: str) -> bool:
    value = board.values.get((model, method, measure))
    return value is not None and bool(torch.isfinite(value).any())


def _outliers(board: Scoreboard, model: str) -> str:
    found = board.about["outlying_patches"].get(model)
    if found is None:
        return "- *scenes* are sentences here."
    area, things = found["area"], found["on_things"]
    if not area:
        return "- No patch of these scenes has an outlying final norm: there is no column *artifacts*."
    tail = ": no artifact tokens, hence no column *artifacts*" if things == 1 else ""
    return f"- Patches of outlying final norm: {area:.1%}; {things:.0%} of them show something{tail}."


def _mean(board: Scoreboard, model: str, method: str, measure: str) -> float:
    if not _known(board, model, method, measure):
        return float("-inf")
    value = board.values[model, method, measure]
    return float(value[torch.isfinite(value)].mean())


def embedded_table() -> list[str]:
    """Return lone spikes and spread of maps of the embedded pretrained model, per start layer."""
    loaded = load_model("dinov2-small-saliency")
    rows = {f"rollout from {start}": ("rollout", {"start_layer": start}) for start in (0, 2, 4, 6, 8, 10)}
    rows["raw, last layer"] = ("raw", {})
    spikes: dict[str, list[float]] = {name: [] for name in rows}
    spread: dict[str, list[float]] = {name: [] for name in rows}
    outliers = []
    for sample in samples():
        prepared = loaded.prepare([f"sample:{sample}"])
        record = capture(loaded, prepared)
        pixels = {"pixel_values": prepared.inputs["pixel_values"]}
        norms = token_norms(loaded.model.backbone, pixels, record.layout)
        outliers.append(float(artifact_patches(norms).float().mean()))
        for name, (method, options) in rows.items():
            relevance = explain(record, method, **options)
            spikes[name].append(float(spike_share(relevance.share())[0]))
            spread[name].append(float(relevance.effective_share()[0]))
    mean = {name: (fmean(spikes[name]), fmean(spread[name])) for name in rows}
    return [
        f"{len(samples())} photographs and drawings of the package, rows of the patches that the "
        f"decoder reads. Patches whose final norm is an outlier: {fmean(outliers):.1%}. *Lone spikes*: share "
        "of mass on patches at least three times the even share and four times the second highest of their "
        "neighbours; "
        "an even map has none, so the spread stands beside it (1 = even).",
        "",
        "| map | lone spikes | spread |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {first:.3f} | {second:.2f} |" for name, (first, second) in mean.items()),
    ]


def ranking(board: Scoreboard) -> list[tuple[str, float]]:
    """Return methods by mean rank over models, in faithfulness, AP and dependence on weights and label."""
    places: dict[str, list[float]] = {}
    for model in [m for m in board.about["models"] if m not in ("scenes-shortcut", TEXT)]:
        methods = list(
            dict.fromkeys(m for name, m, _ in board.values if name == model and m not in BASELINES)
        )
        for column in ("faithfulness", "average_precision", "mass_inside", "weights_matter"):
            sign = 1 if MEASURES[column].better == "higher" else -1
            order = sorted(methods, key=lambda m: -sign * _mean(board, model, m, column))
            for place, method in enumerate(order):
                places.setdefault(method, []).append(place + 1)
    complete = max(len(p) for p in places.values())
    return sorted(
        ((m, sum(p) / len(p)) for m, p in places.items() if len(p) == complete), key=lambda pair: pair[1]
    )


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
