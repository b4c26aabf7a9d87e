"""Regions: coverage on the grid, shares, background."""

import numpy as np
import pytest
import torch


@pytest.fixture
def relevance():
    from attnlib import Relevance, TokenLayout

    scores = torch.arange(1, 36, dtype=torch.float64)[None] * torch.tensor([[1.0], [2.0]])
    prefix = torch.full((2, 1), 5.0, dtype=torch.float64)
    return Relevance(torch.cat([prefix, scores], dim=1), TokenLayout((5, 7), 10, 1, (0,)))


def test_a_patch_that_straddles_a_border_is_shared_by_area():
    from attnlib import Regions

    mask = np.zeros((20, 30), bool)
    mask[:, :13] = True
    covered = Regions.from_masks({"left": mask}).on_grid((2, 3))
    assert torch.allclose(covered[0], torch.tensor([[1.0, 0.3, 0.0], [1.0, 0.3, 0.0]]))


def test_a_window_that_reaches_beyond_the_picture_covers_nothing_there():
    from attnlib import Regions

    covered = Regions.from_masks({"all": np.ones((20, 30))}).on_grid((2, 2), (-30.0, 0.0, 30.0, 20.0))
    assert torch.equal(covered[0], torch.tensor([[0.0, 1.0], [0.0, 1.0]]))


def test_shares_of_a_partition_sum_to_one_and_area_too(relevance):
    from attnlib import Regions

    rng = np.random.default_rng(3)
    first = rng.random((50, 70)) > 0.6
    shares = Regions.from_masks({"a": first, "b": ~first}).shares(relevance)
    assert torch.allclose(shares["a"]["share"] + shares["b"]["share"], torch.ones(2, dtype=torch.float64))
    assert torch.allclose(shares["a"]["area"] + shares["b"]["area"], torch.ones(2, dtype=torch.float64))
    assert shares["a"]["area"][0].item() == pytest.approx(first.mean(), abs=1e-6)


def test_shares_follow_the_part_of_the_picture_that_the_model_saw():
    from attnlib import Regions, Relevance, TokenLayout
    from attnlib.picture import View

    mask = np.zeros((40, 80), bool)
    mask[:, 20:30] = True
    view = View((40, 80), (20, 20), (20.0, 0.0, 60.0, 40.0))
    scores = torch.tensor([[3.0, 1.0, 3.0, 1.0]])
    shares = Regions.from_masks({"strip": mask}).shares(
        Relevance(scores, TokenLayout((2, 2), 10), views=(view,))
    )
    assert shares["strip"]["area"].item() == pytest.approx(0.25)
    assert shares["strip"]["share"].item() == pytest.approx(0.375)
    assert shares["strip"]["lift"].item() == pytest.approx(1.5)


def test_padding_is_no_area(relevance):
    from dataclasses import replace

    from attnlib import Regions

    seen = torch.ones(2, 36, dtype=torch.bool)
    seen[1, -14:] = False
    mask = np.zeros((50, 70), bool)
    mask[:30] = True
    shares = Regions.from_masks({"upper": mask}).shares(replace(relevance, seen=seen))
    assert shares["upper"]["area"].tolist() == pytest.approx([0.6, 1.0])
    assert shares["upper"]["share"][1].item() == pytest.approx(1.0)


def test_views_of_another_picture_are_refused(relevance):
    from dataclasses import replace

    from attnlib import Regions
    from attnlib.errors import InputError
    from attnlib.picture import View

    other = replace(relevance, views=(View.whole((10, 10), (50, 70)),) * 2)
    with pytest.raises(InputError, match="picture of 70x50 px"):
        Regions.from_masks({"a": np.ones((50, 70))}).shares(other)


def test_background_is_what_no_region_claims():
    from attnlib import Regions

    mask = np.zeros((11, 13), bool)
    mask[2:5, 3:7] = True
    rest = Regions.from_masks({"a": mask}).background()
    assert rest is not None
    assert np.array_equal(rest.mask, ~mask)
    assert Regions.from_masks({"a": np.ones((11, 13), bool)}).background() is None


def test_neighbours_that_share_a_pixel_leave_nothing_of_it_to_the_background():
    from attnlib import Region, Regions

    first, second = np.zeros((11, 13), np.float32), np.zeros((11, 13), np.float32)
    first[2:5], first[5] = 1, 0.3
    second[5], second[6:8] = 0.7, 1
    part = np.zeros((11, 13), np.float32)
    part[4], part[5] = 1, 0.3
    inner = Region("inner", part, details={"part_of": "first"})
    rest = Regions((inner, Region("first", first), Region("second", second)), (11, 13)).background()
    assert rest is not None
    assert rest.mask[5].max() == 0
    assert rest.mask.sum() == 11 * 13 - 6 * 13


@pytest.mark.parametrize(
    "mask", [np.ones((2, 3, 4)), np.full((5, 7), np.nan), np.full((5, 7), -1.0), np.full((5, 7), 300)]
)
def test_masks_that_are_no_coverage_are_refused(mask):
    from attnlib import Regions
    from attnlib.errors import InputError

    with pytest.raises(InputError, match="'odd'"):
        Regions.from_masks({"odd": mask})


def test_masks_of_0_to_255_are_read_as_coverage():
    from attnlib import Regions

    regions = Regions.from_masks({"a": np.full((5, 7), 51, np.uint8)})
    assert regions["a"].area == pytest.approx(0.2)


def test_masks_of_different_size_and_unknown_names_are_refused():
    from attnlib import Regions
    from attnlib.errors import InputError

    with pytest.raises(InputError, match="differ in size"):
        Regions.from_masks({"a": np.ones((5, 7)), "b": np.ones((7, 5))})
    regions = Regions.from_masks({"a": np.ones((5, 7))})
    assert regions["a"] is regions[0] is regions[np.int64(0)]
    with pytest.raises(InputError, match="there are"):
        _ = regions["b"]


def test_no_region_covers_nothing():
    from attnlib import Regions

    assert Regions((), (5, 7)).on_grid((2, 3)).shape == (0, 2, 3)


@pytest.mark.parametrize(
    "mask", [np.zeros(5), np.full((5, 7), 255.0), np.full((5, 7), -0.1), np.zeros((0, 7))]
)
def test_a_region_made_by_hand_holds_coverage_too(mask):
    from attnlib import Region
    from attnlib.errors import InputError

    with pytest.raises(InputError, match="the mask 'x' must"):
        Region("x", mask)


def test_coverage_a_rounding_error_above_one_is_not_taken_for_0_to_255():
    from attnlib import Regions

    region = Regions.from_masks({"a": np.full((5, 7), 1.00001)})["a"]
    assert region.area == pytest.approx(1.0)


def test_box_encloses_the_mask():
    from attnlib import Region

    mask = np.zeros((11, 13))
    mask[2:5, 3:7] = 0.5
    assert Region("a", mask).box == (3, 2, 7, 5)
    assert Region("nothing", np.zeros((11, 13))).box == (0, 0, 0, 0)
