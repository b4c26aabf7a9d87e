"""Words that look at a picture: every word's row is held and shown; a patch names who looks at it."""

import re

import numpy as np
import pytest
import torch

from attnlib.layout import TokenLayout
from attnlib.picture import Picture
from attnlib.record import AttentionRecord

GRID = (3, 5)
WORDS = ("a", "red", "star", "there")


@pytest.fixture(scope="module")
def picture():
    return Picture(np.random.default_rng(3).integers(0, 255, (39, 65, 3), dtype=np.uint8), "noise.png")


@pytest.fixture(scope="module")
def captioner():
    """2 layers of patches that look at one another, 2 of words that look at them, 2 of words alone."""
    from attnlib.record import GivenCall

    draw = torch.Generator().manual_seed(23)

    def weights(queries, keys):
        return torch.softmax(3 * torch.randn(1, 2, queries, keys, generator=draw), dim=-1)

    patches = TokenLayout(GRID, 13, ("class",), readout=(0,))
    words = TokenLayout(None, tokens=WORDS, readout=(3,))
    calls = [GivenCall("encoder", weights(16, 16)) for _ in range(2)]
    for _ in range(2):
        calls += [GivenCall("decoder", weights(4, 4)), GivenCall("decoder", weights(4, 16), None, "encoder")]
    return AttentionRecord.from_streams(calls, layouts={"encoder": patches, "decoder": words})


def cross(record):
    return [layer for layer in record.layers if layer.kind == "cross"]


def test_every_word_has_a_row_over_the_patches(captioner, picture, read):
    from attnlib.widgets import viewer

    shown = viewer(captioner, picture)
    kinds = [(source["name"], source["kind"]) for source in shown.document["sources"]]
    assert kinds == [("encoder self", "image"), ("decoder cross", "image"), ("decoder self", "text")]
    spec = shown.document["sources"][1]
    assert spec["words"] == list(WORDS)
    for layer, held in zip(cross(captioner), spec["layers"], strict=True):
        expected = layer.weights()[0].transpose(0, 1)
        np.testing.assert_allclose(read(shown.blob, held["rows"]), expected[..., 1:], rtol=1e-6)
        np.testing.assert_allclose(read(shown.blob, held["prefix"]), expected[..., 0], atol=1e-6)


def test_text_around_an_image_looks_at_it(picture, read):
    from attnlib.widgets import viewer

    weights = torch.tril(torch.ones(20, 20))
    weights = (weights / weights.sum(-1, keepdim=True)).expand(1, 2, 20, 20)
    layout = TokenLayout(GRID, 13, readout=(19,), spans={"image": (2, 17), "after": (17, 20)})
    record = AttentionRecord.from_weights([weights], layout=layout)
    shown = viewer(record, picture, tokens=[f"w{i}" for i in range(20)])
    spec = shown.document["sources"][0]
    assert spec["words"] == ["w19", "w0", "w1", "w17", "w18"]
    rows = read(shown.blob, spec["layers"][0]["rows"])
    np.testing.assert_allclose(rows[0], np.full((2, 15), 1 / 20), rtol=1e-5)
    assert (rows[1] == 0).all()


@pytest.mark.parametrize(
    ("budget", "dtype", "merged"), [(1, "f32", False), (0.0005, "u8", False), (2e-4, "u8", True)]
)
def test_rows_of_words_fit_their_budget_and_name_what_they_gave_up(captioner, picture, budget, dtype, merged):
    from attnlib.widgets.image_source import put_image_source
    from attnlib.widgets.packing import Blob

    spec = put_image_source(Blob(), captioner, picture, part="decoder cross", words_mb=budget)
    assert spec["layers"][0]["rows"]["dtype"] == dtype
    assert (spec["layers"][0]["heads"] == ["mean"]) == merged
    assert any("mean over the heads" in note for note in spec["notes"]) == merged


@pytest.mark.browser
def test_choosing_a_word_shows_where_it_looks(captioner, picture, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(captioner, picture))
    page.get_by_label("source").select_option("1")
    page.get_by_role("button", name="star").click()
    page.get_by_label("head", exact=True).fill("1")
    assert "where the word looks: star (token 2)" in page.locator(".av-caption").first.inner_text()
    box = page.locator(".av-canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 3.5 / 5, box["y"] + box["height"] * 1.5 / 3)
    value = float(re.search(r": ([\d.e+-]+) \(", page.locator(".av-value").first.inner_text())[1])
    row = cross(captioner)[-1].weights()[0, 1, 2, 1:]
    assert value == pytest.approx(float(row[1 * 5 + 3]), rel=6e-3)
    page.get_by_role("button", name="star").press("ArrowRight")
    assert "there (token 3)" in page.locator(".av-caption").first.inner_text()
    assert page.errors == []


@pytest.mark.browser
def test_choosing_a_patch_names_the_words_that_look_at_it(captioner, picture, open_viewer):
    from attnlib.widgets import viewer

    page = open_viewer(viewer(captioner, picture))
    page.get_by_label("source").select_option("1")
    box = page.locator(".av-canvas").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.5 / 5, box["y"] + box["height"] * 2.5 / 3)
    rows = cross(captioner)[-1].weights()[0].mean(dim=0)[:, 1:]
    lift = rows[:, 10] / rows.sum(dim=1) * 15
    said = re.search(
        r'looked at most by "(\w+)" \(([\d.]+)x\)', page.locator(".av-caption").first.inner_text()
    )
    assert said[1] == WORDS[int(lift.argmax())]
    assert float(said[2]) == pytest.approx(float(lift.max()), rel=6e-3)
    assert page.errors == []
