"""The page of the scoreboard: tables, meaning of the columns, order of the methods. For scoreboard.py."""

from __future__ import annotations

from statistics import fmean

import torch

from attnlib import capture, explain, load_model
from attnlib.evaluate import BASELINES, artifact_patches, spike_share, token_norms
from attnlib.evaluate.measures import MEASURES
from attnlib.evaluate.scoreboard import Scoreboard, noise_name
from attnlib.picture import samples

TEXT = "agreement-bert"
UNRANKED = ("scenes-shortcut", "scenes-captioner", TEXT)
"""Models whose question is another one: a watermark, a word of a caption, a word of a sentence."""
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
        "For `agreement-bert` the pictures are sentences: is the missing verb singular or plural? The truth "
        "is the subject, which alone decides; hidden words become the unknown word; the model's own marks "
        "are left out. More on text: [replays.md](replays.md).",
        "",
        "## The choice that follows",
        "",
        choice,
        "",
        *_places(board),
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
    methods = {method for name, method, _ in board.values if name == model}
    measured = any(_known(board, model, method, "artifact_share") for method in methods)
    tail = "" if measured else ": no artifact tokens, hence no column *artifacts*"
    return f"- Patches of outlying final norm: {area:.1%}; {things:.1%} of them show something{tail}."


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
        norms = token_norms(loaded.model, pixels, record.layout)
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


def _places(board: Scoreboard) -> list[str]:
    places = ranking(board)
    if not places:
        return []
    told = ", ".join(f"`{method}` {place:.1f}" for method, place in places)
    return [
        "Mean rank over the classifiers and the pair, in insertion minus deletion, average precision, mass "
        f"inside and dependence on the weights (methods that serve all of them; 1 is best): {told}.",
        "",
    ]


def ranking(board: Scoreboard) -> list[tuple[str, float]]:
    """Return methods by mean rank over models, in faithfulness, AP and dependence on weights and label."""
    places: dict[str, list[float]] = {}
    for model in [m for m in board.about["models"] if m not in UNRANKED]:
        methods = list(
            dict.fromkeys(m for name, m, _ in board.values if name == model and m not in BASELINES)
        )
        for column in ("faithfulness", "average_precision", "mass_inside", "weights_matter"):
            sign = 1 if MEASURES[column].better == "higher" else -1
            order = sorted(methods, key=lambda m: -sign * _mean(board, model, m, column))
            for place, method in enumerate(order):
                places.setdefault(method, []).append(place + 1)
    complete = max((len(p) for p in places.values()), default=0)
    return sorted(
        ((m, sum(p) / len(p)) for m, p in places.items() if len(p) == complete), key=lambda pair: pair[1]
    )
