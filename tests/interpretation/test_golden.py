"""Whole texts, read by eye and kept: ``python tests/interpretation/test_golden.py`` writes them again."""

from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"
SIZE, GRID = (370, 290), (37, 29)


def box(left, top, right, bottom):
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def parts():
    """Return the parts of a poster as the finders would name them."""
    from attnlib import Region, Regions

    face = {"part_of": "the face"}
    items = (
        Region("the middle of the face", box(100, 120, 170, 140), "face part", "scikit-image", None, face),
        Region("the mouth and chin", box(100, 140, 170, 170), "face part", "scikit-image", None, face),
        Region("the upper face", box(100, 70, 170, 120), "face part", "scikit-image", None, face),
        Region("the face", box(100, 70, 170, 170), "face", "scikit-image", 0.7),
        Region('the words "A LIFE"', box(60, 310, 230, 350), "text", "rapidocr", 0.99),
        Region('the words "RATAN TATA"', box(20, 10, 270, 50), "text", "rapidocr", 0.98),
    )
    regions = Regions(items, SIZE, ("Text: 2 lines found by rapidocr.", "Faces: 1 found by scikit-image."))
    return Regions((*items, regions.background()), SIZE, regions.notes)


def relevance(levels, method="rollout"):
    import torch

    from attnlib import Relevance, TokenLayout

    heat = torch.full(GRID, 0.35, dtype=torch.float64)
    for name, level in levels.items():
        left, top, right, bottom = (edge // 10 for edge in parts()[name].box)
        heat[top:bottom, left:right] = level
    scores = torch.cat([torch.tensor([20.0], dtype=torch.float64), heat.flatten()])[None]
    return Relevance(scores, TokenLayout(GRID, 10, 1, (0,)), method, {"start_layer": 6}, "class")


def seed_like():
    from attnlib import interpret

    levels = {'the words "A LIFE"': 3.4, "the mouth and chin": 3.6, 'the words "RATAN TATA"': 1.7}
    return interpret(relevance(levels), parts(), said="Portrait (81 %).")


def flat():
    from attnlib import interpret

    return interpret(relevance(dict.fromkeys((), 1.0)), parts())


def places():
    from attnlib import interpret

    return interpret(relevance({'the words "A LIFE"': 5.0}))


def gradients():
    from attnlib import interpret

    return interpret(relevance({"the face": 9.0}, "generic_relevance"), parts())


TEXTS = {"seed_like": seed_like, "flat": flat, "places": places, "gradients": gradients}


@pytest.mark.parametrize("name", list(TEXTS))
def test_the_text_is_the_one_that_was_read_and_approved(name):
    assert TEXTS[name]().to_text() == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_the_seed_case_is_told_as_the_seed_tells_it():
    text = seed_like()
    short = "\n".join(text.section("short").lines)
    highest, moderate = (
        next(line for line in short.split("\n") if line.startswith(b)) for b in ("Highest", "Moderate")
    )
    assert 'the words "A LIFE"' in highest
    assert "the mouth and chin" in highest
    assert 'the words "RATAN TATA"' in moderate
    assert "the background" in next(line for line in short.split("\n") if line.startswith(("Low", "Minimal")))


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, make in TEXTS.items():
        (GOLDEN / f"{name}.txt").write_text(make().to_text(), encoding="utf-8")
