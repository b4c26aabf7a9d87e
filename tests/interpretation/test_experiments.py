"""Edits change only the part they name; experiments measure the same places in every version."""

import numpy as np
import pytest


@pytest.fixture
def picture():
    from attnlib import Picture

    rng = np.random.default_rng(3)
    pixels = np.full((71, 97, 3), (30, 60, 90), np.uint8)
    pixels[11:23, 31:61] = rng.integers(0, 255, (12, 30, 3))
    return Picture(pixels)


@pytest.fixture
def mask():
    held = np.zeros((71, 97), bool)
    held[11:23, 31:61] = True
    return held


def test_hiding_fills_the_part_with_the_colour_around_it_and_touches_nothing_else(picture, mask):
    from attnlib.picture.edits import hidden

    made = hidden(picture, mask)
    assert (made.pixels[mask] == (30, 60, 90)).all()
    assert np.array_equal(made.pixels[~mask], picture.pixels[~mask])
    assert picture.pixels[15, 40].tolist() != [30, 60, 90]


def test_moving_carries_the_pixels_and_clears_their_old_place(picture, mask):
    from attnlib.picture.edits import moved, shifted

    made = moved(picture, mask, right=-20, down=40)
    assert np.array_equal(
        np.argwhere(shifted(mask, right=-20, down=40)), np.argwhere(mask) + np.array((40, -20))
    )
    assert shifted(mask, right=50).sum() == 12 * 16
    assert np.array_equal(made.pixels[51:63, 11:41], picture.pixels[11:23, 31:61])
    assert (made.pixels[mask] == (30, 60, 90)).all()


def test_words_are_written_inside_the_part_only(picture, mask):
    from attnlib.picture.edits import rewritten

    made = rewritten(picture, mask, "NEW")
    assert np.array_equal(made.pixels[~mask], picture.pixels[~mask])
    assert (made.pixels[mask] != (30, 60, 90)).any(axis=1).mean() > 0.05


def test_impossible_edits_are_refused(picture, mask):
    from attnlib.errors import InputError
    from attnlib.picture.edits import hidden, moved, rewritten

    with pytest.raises(InputError, match="leaves the picture"):
        moved(picture, mask, right=90)
    with pytest.raises(InputError, match="empty"):
        hidden(picture, mask & ~mask)
    with pytest.raises(InputError, match="mask is"):
        hidden(picture, mask[:9])
    with pytest.raises(InputError, match="no words"):
        rewritten(picture, mask, "  ")


def test_attention_and_answer_are_measured_at_the_same_places_in_every_version(picture, mask, saliency):
    from attnlib import Regions, capture, explain
    from attnlib.interpretation.experiments import attention_and_answer
    from attnlib.picture.edits import hidden

    loaded = saliency
    regions = Regions.from_masks({"box": mask, "rest": ~mask})
    versions = {"as it is": picture, "box hidden": hidden(picture, mask)}
    table, maps = attention_and_answer(versions, regions, loaded, size=98, start_layer=6)
    assert list(maps) == list(versions)
    assert len(table) == 4
    record = capture(loaded, loaded.prepare([picture], size=98))
    own = regions.shares(explain(record, "rollout", start_layer=6))["box"]
    row = table[(table.picture == "as it is") & (table.place == "box")].iloc[0]
    assert row["share"] == pytest.approx(own["share"].item(), abs=1e-6)
    for version in versions:
        assert table[table.picture == version]["share"].sum() == pytest.approx(1, abs=1e-4)
        assert table[table.picture == version]["answer share"].sum() == pytest.approx(1, abs=1e-3)
