"""Replay published orderings on models that are at hand: ``python benchmarks/replays.py``.

The papers used ImageNet, GLUE or other data that cannot be had without a network; absolute values
therefore cannot be compared, orderings can. Writes replays.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor

from attnlib import capture, explain, load_model
from attnlib.evaluate import (
    agreement_sentences,
    artifact_concentration,
    artifact_patches,
    average_precision,
    coverage,
    deletion,
    insertion,
    iou,
    maps_of_method,
    mean_estimate,
    paired_difference,
    scene_trials,
    token_norms,
)
from attnlib.evaluate.perturbation import CHEFER_FRACTIONS

HERE = Path(__file__).resolve().parent


def say(first: str, second: str, difference, *, claimed: bool = True) -> str:
    """Return an ordering with its paired difference, and whether it is the paper's (first above second)."""
    if difference.low > 0:
        told = f"{first} above {second}: {difference}"
        return f"{told}, as in the paper" if claimed else told
    if difference.high < 0:
        told = f"{second} above {first}: {difference} (first minus second)"
        return f"{told}; **differs from the paper**" if claimed else told
    told = f"no clear order of {first} and {second}: {difference}"
    return f"{told}; the paper's order is **not seen here**" if claimed else told


def abnar_zuidema(count: int) -> list[str]:
    """Correlate attention, rollout and flow with blank-out and input gradients, per sentence."""
    loaded = load_model("agreement-bert")
    tokenizer, model = loaded.processor, loaded.model
    sentences = agreement_sentences(count, seed=2)
    rows: dict[tuple[str, int], dict[str, list[float]]] = {}
    layers = model.config.num_hidden_layers
    for sentence in sentences:
        words = tokenizer([sentence.text], return_tensors="pt")
        inputs = {"input_ids": words["input_ids"], "attention_mask": words["attention_mask"]}
        label = int(sentence.plural)
        truths = {
            "blank-out": _blank_out(model, inputs, label, tokenizer.unk_token_id),
            "gradients": _gradients(model, inputs, label),
        }
        record = capture(model, inputs)
        for upto in range(layers):
            found = {
                "raw": explain(record, "raw", query=0, layers=[upto]).scores,
                "rollout": explain(record, "rollout", query=0, layers=list(range(upto + 1))).scores,
                "flow": explain(record, "flow", query=0, layers=list(range(upto + 1))).scores,
            }
            for name, scores in found.items():
                cell = rows.setdefault((name, upto), {key: [] for key in truths})
                for key, truth in truths.items():
                    own = spearmanr(scores[0, 1:-1].numpy(), truth[1:-1].numpy()).statistic
                    cell[key].append(float(own))
    truths_told, found_told = ("blank-out", "gradients"), ("raw", "rollout", "flow")
    lines = [
        f"## Abnar & Zuidema 2020: attention against blank-out and gradients ({count} sentences)",
        "",
        "`agreement-bert` says whether the missing verb is singular or plural. Spearman's correlation per "
        "sentence between the scores of the words (class row) and how much the score of the right "
        "answer falls when the word is replaced by the unknown word (blank-out), or the norm "
        "of the gradient at its embedding. Mean over sentences. Paper: raw attention is weak and drops in "
        "the upper layers, rollout and flow are clearly above it.",
        "",
        "| layer | " + " | ".join(f"{m}, {t}" for t in truths_told for m in found_told) + " |",
        "| ---: |" + " ---: |" * 6,
    ]
    for upto in range(layers):
        cells = [
            f"{mean_estimate(torch.tensor(rows[m, upto][t])).value:.2f}"
            for t in ("blank-out", "gradients")
            for m in ("raw", "rollout", "flow")
        ]
        lines.append(f"| {upto} | {' | '.join(cells)} |")
    lines += ["", "Last layer, paired over sentences:", ""]
    for truth in ("blank-out", "gradients"):
        last = {m: torch.tensor(rows[m, layers - 1][truth]) for m in ("raw", "rollout", "flow")}
        lines += [
            f"- {truth}: {say(a, b, paired_difference(last[a], last[b]), claimed=claimed)}"
            for a, b, claimed in (("rollout", "raw", True), ("flow", "raw", True), ("rollout", "flow", False))
        ]
    return [*lines, ""]


@torch.no_grad()
def _blank_out(model, inputs: dict[str, Tensor], label: int, unknown: int) -> Tensor:
    ids = inputs["input_ids"]
    length = ids.shape[1]
    blanked = ids.repeat(length + 1, 1)
    blanked[torch.arange(length), torch.arange(length)] = unknown
    mask = inputs["attention_mask"].expand(length + 1, -1)
    probability = model(input_ids=blanked, attention_mask=mask).logits.log_softmax(dim=1)[:, label]
    return (probability[-1] - probability[:-1]).abs()


def _gradients(model, inputs: dict[str, Tensor], label: int) -> Tensor:
    embedded = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).logits
    (gradient,) = torch.autograd.grad(logits[0, label] - logits[0, 1 - label], embedded)
    return gradient[0].norm(dim=-1)


def chefer(count: int) -> list[str]:
    """Replay perturbation and segmentation on the classifier whose head reads the class token."""
    trials = scene_trials(load_model("scenes-vit"), count, seed=2)
    methods = _usable(trials, ("raw", "rollout", "grad_cam", "generic_relevance", "transformer_attribution"))
    black = {"fill": -1.0, "fractions": CHEFER_FRACTIONS}
    table: dict[str, dict[str, Tensor]] = {}
    for method in methods:
        maps = maps_of_method(trials, method)
        table[method] = {
            "negative": insertion(trials.hit, trials.pixel_values, maps, **black).area,
            "positive": deletion(trials.hit, trials.pixel_values, maps, **black).area,
            "mIoU": iou(maps, trials.masks, threshold="mean"),
            "mAP": average_precision(maps, trials.masks),
        }
    lines = [
        f"## Chefer, Gur & Wolf 2021: perturbation and segmentation ({count} scenes, scenes-vit)",
        "",
        "Their protocol: 10 to 90 % of the picture black, area under the share of pictures whose class is "
        "still said; negative (lowest first): higher is better, positive: lower; segmentation at the "
        "map's mean. Order in the paper: their method above rollout above raw attention above Grad-CAM "
        "(negative: 54.2, 53.1, 45.6, 41.5; mIoU: 62.0, 55.4, 46.4, 40.8).",
        "",
        *_table(table),
        "",
    ]
    ours = next((m for m in ("transformer_attribution", "generic_relevance") if m in table), None)
    if ours is not None:
        for other in [m for m in methods if m not in ("transformer_attribution", "generic_relevance")]:
            for column in ("negative", "mIoU"):
                gain = paired_difference(table[ours][column], table[other][column])
                lines.append(f"- {column}: {say(ours, other, gain)}")
    return [*lines, ""]


def legrad(count: int) -> list[str]:
    """Replay LeGrad's segmentation claim on the caption pair and the classifier."""
    lines = [
        f"## Bousselham et al. 2025 (LeGrad): segmentation ({count} scenes)",
        "",
        "Claim: LeGrad above CheferCAM (attention Grad-CAM and generic relevance stand for it here) and "
        "rollout; ImageNet-Seg mIoU 58.7, 47.5, 40.6. Maps are cut at their mean. A mean of positive parts "
        "leaves a floor over the whole picture, so the cut takes in too much of LeGrad's maps here; mAP "
        "reads ranks only.",
        "",
    ]
    for name in ("scenes-pair", "scenes-vit"):
        trials = scene_trials(load_model(name), count, seed=2)
        methods = _usable(trials, ("legrad", "generic_relevance", "attention_grad_cam", "rollout", "raw"))
        table = {}
        for method in methods:
            maps = maps_of_method(trials, method)
            table[method] = {
                "mIoU": iou(maps, trials.masks, threshold="mean"),
                "mAP": average_precision(maps, trials.masks),
            }
        lines += [f"### {name}", "", *_table(table), ""]
        if "legrad" in table:
            for other in [m for m in methods if m != "legrad"]:
                gain = paired_difference(table["legrad"]["mIoU"], table[other]["mIoU"])
                lines.append(f"- mIoU: {say('legrad', other, gain)}")
        lines.append("")
    return lines


def registers(count: int) -> list[str]:
    """Compare tokens of outlying norm with and without registers, and on a real pretrained model."""
    lines = [
        "## Darcet et al. 2024: artifact tokens with and without registers",
        "",
        "Share of patches whose final norm is an outlier of their picture, and how many times its even share "
        "raw attention and rollout put there. The paper's effect is one of large models trained for long; "
        "small models trained for minutes need not show it.",
        "",
        "In scenes the truth tells what the outlying patches show; artifacts would lie on background.",
        "",
        "| model | pictures | outlying patches | these on things | raw, times even | rollout, times even |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in ("scenes-vit", "scenes-mean", "scenes-registers"):
        trials = scene_trials(load_model(name), count, seed=2)
        layout = trials.part(0, 1).capture(internals=False, gradients=False).layout
        norms = token_norms(trials.loaded.model, {"pixel_values": trials.pixel_values}, layout)
        patches = artifact_patches(norms)
        things = coverage(trials.things, (patches.shape[1], patches.shape[2])) > 0
        share = float((patches & things).sum() / patches.sum().clamp(min=1))
        maps = [maps_of_method(trials, m) for m in ("raw", "rollout")]
        lines.append(_artifact_row(name, patches, f"{share:.0%}", maps))
    lines.append(_real_artifacts())
    return [*lines, ""]


def _real_artifacts() -> str:
    from attnlib.picture import samples

    loaded = load_model("dinov2-small-saliency")
    areas, times = [], {"raw": [], "rollout": []}
    for name in samples():
        prepared = loaded.prepare([f"sample:{name}"])
        record = capture(loaded, prepared)
        pixels = {"pixel_values": prepared.inputs["pixel_values"]}
        patches = artifact_patches(token_norms(loaded.model, pixels, record.layout))
        areas.append(patches.float().mean())
        for method, found in times.items():
            found.append(artifact_concentration(explain(record, method, query="class").heatmap(), patches))
    cells = []
    for found in times.values():
        value = torch.cat(found)
        cells.append(f"{value.nanmean():.1f}" if bool(torch.isfinite(value).any()) else "-")
    area = torch.stack(areas).mean()
    return f"| dinov2-small-saliency (class row) | {len(areas)} | {area:.3f} | - | {' | '.join(cells)} |"


def _artifact_row(name: str, patches: Tensor, on_things: str, maps: Sequence[Tensor]) -> str:
    times = [artifact_concentration(m, patches) for m in maps]
    cells = [f"{t.nanmean():.1f}" if bool(torch.isfinite(t).any()) else "-" for t in times]
    area = patches.float().mean()
    return f"| {name} | {len(patches)} | {area:.3f} | {on_things} | {' | '.join(cells)} |"


def _usable(trials, methods: Sequence[str]) -> list[str]:
    from attnlib.errors import AttnlibError

    usable = []
    for method in methods:
        try:
            maps_of_method(trials.part(0, 1), method)
        except AttnlibError as error:
            print(f"{method} left out: {error}")
        else:
            usable.append(method)
    return usable


def _table(table: dict[str, dict[str, Tensor]]) -> list[str]:
    columns = list(next(iter(table.values())))
    lines = [f"| method | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    lines += [
        f"| {m} | {' | '.join(str(mean_estimate(row[c])) for c in columns)} |" for m, row in table.items()
    ]
    return lines


def main() -> None:
    """Run all replays and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--output", type=Path, default=HERE / "replays.md")
    names = ("abnar_zuidema", "chefer", "legrad", "registers")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    start, lines = time.time(), []
    chosen = [r for r in (abnar_zuidema, chefer, legrad, registers) if r.__name__ in options.only]
    for replay in chosen:
        lines += replay(options.count)
        print(f"{replay.__name__}: {time.time() - start:.0f} s", flush=True)
    head = [
        "# Published orderings, replayed",
        "",
        "Made by `python benchmarks/replays.py`. Small models trained on generated data, so only orderings "
        "can be compared, not values; intervals are 95 % bootstraps over sentences or scenes. Every line "
        "says whether its order is the paper's.",
        "",
    ]
    options.output.write_text("\n".join([*head, *lines]))


if __name__ == "__main__":
    main()
