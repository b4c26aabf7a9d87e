"""Do the findings hold for other scenes and for retrained models? ``python benchmarks/seeds.py``.

Measures the same methods on scenes of other seeds and, if a folder of models trained with another seed is
given, on those; writes seeds.md with the accuracy of every model, the order of the methods and how much
the orders agree. Retrained models come from
``python data/models/train.py --seed 1 --only scenes-vit scenes-mean --output build/retrained``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from scipy.stats import spearmanr

from attnlib import load_model
from attnlib.evaluate import CLASSES, make_scenes, measure_model
from attnlib.evaluate.scoreboard import Scoreboard

HERE = Path(__file__).resolve().parent
METHODS = (
    "raw",
    "rollout",
    "attention_norm",
    "globenc",
    "attention_grad_cam",
    "attention_gradient",
    "generic_relevance",
    "gradient_rollout",
    "legrad",
    "cp_lrp",
    "grad_cam",
)
COLUMNS = ("faithfulness", "average_precision", "mass_inside")
FLOORS = {"top_label_shown": 0.9, "labels_right": 0.95}
"""What the tests ask of a classifier on scenes of a seed that it was not trained on."""


def measured(model: str, seed: int, count: int) -> tuple[Scoreboard, dict[str, float]]:
    """Return a board and the accuracy of one model on scenes of one seed."""
    torch.set_num_threads(1)
    loaded = load_model(model)
    scenes = list(make_scenes(200, seed=seed))
    with torch.no_grad():
        logits = torch.cat(
            [
                loaded.model(**loaded.prepare([s.picture for s in scenes[i : i + 50]]).inputs).logits
                for i in range(0, 200, 50)
            ]
        )
    truth = torch.tensor([[label in scene.labels for label in CLASSES] for scene in scenes])
    accuracy = {
        "top_label_shown": float(truth.gather(1, logits.argmax(1, keepdim=True)).float().mean()),
        "labels_right": float(((logits > 0) == truth).float().mean()),
    }
    return measure_model(loaded, METHODS, count=count, checks=2, seed=seed, cache=None), accuracy


def page(found: dict[tuple[str, int], tuple[Scoreboard, dict[str, float]]], count: int, spent: str) -> str:
    """Return the document: accuracy, order of the methods, agreement of the orders."""
    floors = ", ".join(f"{name.replace('_', ' ')} {floor}" for name, floor in FLOORS.items())
    lines = [
        "# Other scenes, retrained models",
        "",
        f"Made by `python benchmarks/seeds.py` ({spent}; {count} scenes each). The models were trained on "
        "seed 1 of the scenes; *retrained* ones on seed 1001, from other starting weights.",
        "",
        "## Are they as accurate?",
        "",
        f"Floors of the tests: {floors}.",
        "",
        "| model | scene seed | top label shown | labels right | floors |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for (model, seed), (_, accuracy) in found.items():
        kept = all(accuracy[name] > floor for name, floor in FLOORS.items())
        cells = " | ".join(f"{accuracy[name]:.3f}" for name in FLOORS)
        lines.append(f"| {shown(model)} | {seed} | {cells} | {'held' if kept else '**not held**'} |")
    for column in COLUMNS:
        lines += ["", f"## {column.replace('_', ' ')}", "", *table(found, column)]
    return "\n".join(lines) + "\n"


def table(found: dict[tuple[str, int], tuple[Scoreboard, dict[str, float]]], column: str) -> list[str]:
    """Return means per method, and the rank correlation of each order with that of the first seed."""
    keys = list(found)
    means = {
        (model, seed): [board.estimate(name_of(board), method, column).value for method in METHODS]
        for (model, seed), (board, _) in found.items()
    }
    heads = " | ".join(f"{shown(model)}, seed {seed}" for model, seed in keys)
    lines = [f"| method | {heads} |", "| --- |" + " ---: |" * len(keys)]
    order = sorted(range(len(METHODS)), key=lambda i: -means[keys[0]][i])
    lines += [f"| {METHODS[i]} | " + " | ".join(f"{means[k][i]:.2f}" for k in keys) + " |" for i in order]
    agreement, winner = [], []
    for key in keys:
        first = next(k for k in keys if base_of(k[0]) == base_of(key[0]))
        same = spearmanr(means[first], means[key]).statistic
        agreement.append("-" if key == first else f"{same:.2f}")
        above = sum(
            found[key][0].against(name_of(found[key][0]), method, noise, column).low > 0
            for method, noise in ((m, "uniform" if column == "mass_inside" else "random") for m in METHODS)
        )
        winner.append(f"{above} of {len(METHODS)}")
    lines.append(f"| *rank correlation with the model's first seed* | {' | '.join(agreement)} |")
    lines.append(f"| *methods above noise (interval without 0)* | {' | '.join(winner)} |")
    return lines


def name_of(board: Scoreboard) -> str:
    """Return the model of a board that holds one."""
    return next(iter(board.values))[0]


def base_of(model: str) -> str:
    """Return the name of the model that a folder holds another training of."""
    return Path(model).name


def shown(model: str) -> str:
    """Return how a model is called in the tables."""
    return f"{base_of(model)} retrained" if "/" in model else model


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--models", nargs="+", default=["scenes-vit", "scenes-mean"])
    parser.add_argument("--retrained", type=Path, default=None, help="folder of models trained with --seed 1")
    parser.add_argument("--output", type=Path, default=HERE / "seeds.md")
    options = parser.parse_args(arguments)
    wanted = [(model, seed) for model in options.models for seed in options.seeds]
    if options.retrained is not None:
        again = [str(options.retrained.resolve() / model) for model in options.models]
        wanted += [(model, options.seeds[0]) for model in again if Path(model).is_dir()]
    start = time.time()
    with ProcessPoolExecutor(2) as pool:
        running = {key: pool.submit(measured, *key, options.count) for key in wanted}
        found = {key: job.result() for key, job in running.items()}
    spent = f"{(time.time() - start) / 60:.1f} minutes, two processes"
    options.output.write_text(page(found, options.count, spent))
    print(json.dumps({f"{shown(m)}/{s}": a for (m, s), (_, a) in found.items()}, indent=1))


if __name__ == "__main__":
    main()
