"""Are the parts found, and does the text name the right band? ``python benchmarks/interpretation.py``.

Posters whose parts are known to the pixel (data/images/posters/make_posters.py), in two halves: the
development half may be looked at while finders and wording are tuned, the held-out half is only scored.

- Detection: a found line of text or face counts as right if it overlaps the true part (intersection
  over union of at least 0.3). Precision = right / found, recall = true parts found / true parts.
- Words: edit similarity of what was read and what was written, over the lines found.
- Wording: mass is planted on the true parts so that each is in a known band. The text is written from
  the *found* regions; a true part counts as right if a claim about it states its band.
- Time: of one picture at 518 px on this machine, with and without the checks (``--time``).

``--write`` puts the table into benchmarks/interpretation.md.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import os
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnlib import Regions, Relevance, TokenLayout, find_regions, interpret
from attnlib.bands import BAND_NAMES

ROOT = Path(__file__).resolve().parents[1]
TARGET_LIFT = {"highest": 4.6, "moderate": 2.1, "low": 1.0, "minimal": 0.15}
GRID_SIDE = 37


def load_posters() -> Any:
    """Import the script that composes the posters."""
    path = ROOT / "data/images/posters/make_posters.py"
    spec = importlib.util.spec_from_file_location("make_posters", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["make_posters"] = module
    spec.loader.exec_module(module)
    return module


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return intersection over union of two masks."""
    a, b = first > 0.5, second > 0.5
    return float((a & b).sum() / max(1, (a | b).sum()))


def planted(truth: dict[str, np.ndarray], bands: dict[str, str], size: tuple[int, int]) -> Relevance:
    """Return a map in which each true part has the lift of its band."""
    height, width = size
    step = max(height, width) / GRID_SIDE
    grid = (max(1, round(height / step)), max(1, round(width / step)))
    cover = Regions.from_masks(truth).on_grid(grid).double()
    lifts = torch.tensor([TARGET_LIFT[bands[name]] for name in truth], dtype=torch.float64)
    area = cover.mean(dim=(1, 2))
    rest = float((1 - (lifts * area).sum()) / (1 - area.sum()).clamp(min=1e-9))
    heat = (lifts[:, None, None] * cover).sum(dim=0) + max(rest, 0.0) * (1 - cover.sum(dim=0).clamp(max=1))
    return Relevance(heat.reshape(1, -1), TokenLayout(grid))


def true_band(name: str, truth: dict[str, np.ndarray], relevance: Relevance) -> str:
    """Return the band that the true part has in the planted map."""
    from bisect import bisect_right

    lift = float(Regions.from_masks({name: truth[name]}).shares(relevance)[name]["lift"][0])
    return BAND_NAMES[bisect_right([0.5, 1.5, 3.0], lift)]


def score(poster: Any, posters: Any) -> dict[str, float]:
    """Score one poster."""
    truth = posters.truth_masks(poster)
    pixels = np.asarray(poster.image)
    regions = find_regions(pixels)
    found = [region for region in regions if region.kind in ("text", "face")]
    result = dict.fromkeys(
        (
            "text true",
            "text found",
            "text right",
            "face true",
            "face found",
            "face right",
            "words",
            "said",
            "said right",
        ),
        0.0,
    )
    match: dict[str, Any] = {}
    for kind in ("text", "face"):
        true = [name for name in truth if name.startswith("face") is (kind == "face")]
        own = [region for region in found if region.kind == kind]
        result[f"{kind} true"], result[f"{kind} found"] = len(true), len(own)
        for name in true:
            best = max(own, key=lambda r: overlap(r.mask, truth[name]), default=None)
            if best is not None and overlap(best.mask, truth[name]) >= 0.3:
                match[name] = best
                result[f"{kind} right"] += 1
    for name, words in poster.words.items():
        if name in match:
            read = str(match[name].details.get("words", ""))
            result["words"] += difflib.SequenceMatcher(None, words, read).ratio()
    names = list(truth)
    for bands in list(permutations(BAND_NAMES, len(names)))[:: 5 if len(names) > 2 else 2]:
        if not names:
            break
        relevance = planted(truth, dict(zip(names, bands, strict=True)), pixels.shape[:2])
        text = interpret(relevance, regions)
        for name in names:
            result["said"] += 1
            result["said right"] += _stated(text, match.get(name)) == true_band(name, truth, relevance)
    return result


def _stated(text: Any, region: Any) -> str | None:
    """Return the band that the text states for a region: its own claim, or that of most of its parts."""
    if region is None:
        return None
    claim = text.claim(region.name)
    if claim is not None:
        return claim.band
    parts = [c for c in text.claims if c.kind == "face part" and _owner(text, c.region) == region.name]
    if not parts:
        return None
    return max(parts, key=lambda c: c.area).band


def _owner(text: Any, name: str) -> str | None:
    return next((n.part_of for n in text.numbers if n.region == name), None)


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return the results as Markdown."""
    columns = "text precision", "text recall", "words read", "face precision", "face recall", "band right"
    lines = [f"| half | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for half, r in rows.items():
        parts = [
            _ratio(r["text right"], r["text found"]),
            _ratio(r["text right"], r["text true"]),
            f"{100 * r['words'] / max(1.0, r['text right']):.1f} %",
            _ratio(r["face right"], r["face found"]),
            _ratio(r["face right"], r["face true"]),
            _ratio(r["said right"], r["said"]),
        ]
        lines.append(f"| {half} | " + " | ".join(parts) + " |")
    return "\n".join(lines)


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.2f} ({part:.0f}/{whole:.0f})" if whole else "none"


def timed() -> str:
    """Return the time of every step for the sample poster at 518 px."""
    from attnlib import capture, explain, load_model, load_picture

    picture = load_picture("sample:poster")
    loaded = load_model("dinov2-small-saliency")
    lines = ["| step | seconds |", "| --- | --- |"]

    def step(name: str, work: Any) -> Any:
        start = time.perf_counter()
        value = work()
        lines.append(f"| {name} | {time.perf_counter() - start:.2f} |")
        return value

    record = step("capture", lambda: capture(loaded, loaded.prepare([picture], size=518)))
    relevance = step("rollout from layer 6", lambda: explain(record, "rollout", start_layer=6))
    regions = step("regions (text and faces)", lambda: find_regions(picture))
    interpret(relevance, regions)
    step("text without checks", lambda: interpret(relevance, regions))
    for check in ("artifacts", "stability", "position", "causal"):
        step(
            f"check: {check}",
            lambda check=check: interpret(
                relevance, regions, picture=picture, model=loaded, checks=check, progress=False
            ),
        )
    return "\n".join(lines)


def main() -> None:
    """Score both halves and print (or write) the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--time", action="store_true", help="measure times too")
    parser.add_argument("--half", choices=("development", "held-out"), help="score one half only")
    parser.add_argument("--write", action="store_true", help="write benchmarks/interpretation.md")
    arguments = parser.parse_args()
    posters = load_posters()
    rows = {}
    for half in posters.HALVES if arguments.half is None else (arguments.half,):
        total: dict[str, float] = {}
        for made in posters.posters(half):
            one = score(made, posters)
            print(made.name, {k: round(v, 2) for k, v in one.items()}, flush=True)
            total = {name: total.get(name, 0.0) + value for name, value in one.items()}
        rows[half] = total
    parts = [table(rows)]
    if arguments.time:
        parts.append(timed())
    text = "\n\n".join(parts)
    print(text)
    if arguments.write:
        head = "# The written interpretation\n\nMade by `python benchmarks/interpretation.py --write --time`"
        notes = __doc__.split("\n\n", 1)[1].split("``--write``")[0].strip()
        machine = f"{os.cpu_count()} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
        (ROOT / "benchmarks/interpretation.md").write_text(f"{head} ({machine}).\n\n{notes}\n\n{text}\n")


if __name__ == "__main__":
    main()
