"""The checks, on models small enough to know what must come out."""

import numpy as np
import pytest
import torch

SIZE, GRID = (110, 150), (11, 15)


def follows_content(picture, place=None):
    """Return the map of a made-up model that attends to bright places."""
    from attnlib import Relevance, TokenLayout
    from attnlib.picture import View

    bright = torch.tensor(picture.pixels, dtype=torch.float64).mean(dim=2)[None, None]
    heat = torch.nn.functional.interpolate(bright, GRID, mode="area")[0]
    view = View.whole(picture.size, SIZE)
    return Relevance(heat.reshape(1, -1) + 1.0, TokenLayout(GRID, 10), "rollout", views=(view,))


def always_the_centre(picture, place=None):
    """Return the map of a made-up model that looks at the centre of whatever it is shown."""
    from attnlib import Picture

    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[40:70, 50:90] = 200
    return follows_content(Picture(pixels))


@pytest.fixture
def scene():
    """Return a picture with a bright box in its centre, off the border, and the region of that box."""
    from attnlib import Picture, Region

    pixels = np.full((*SIZE, 3), 10, np.uint8)
    pixels[41:69, 52:88] = 240
    mask = np.zeros(SIZE, bool)
    mask[41:69, 52:88] = True
    return Picture(pixels), Region("box", mask)


def nothing(_):
    return None


def test_eight_views_differ_from_the_picture_and_say_where_it_went(scene):
    from attnlib import Picture
    from attnlib.interpretation.views import eight_views

    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[60:63, 80:83] = 255
    for text in (True, False):
        views = eight_views(Picture(pixels), (10.0, 10.0), text=text)
        assert len({view.name for view in views}) == len(views) == 8
        assert any(view.mirrored for view in views) is not text
        for view in views:
            rows, columns = np.nonzero(view.picture.pixels[..., 0] > 100)
            assert view.place(81.5, 61.5) == pytest.approx((columns.mean() + 0.5, rows.mean() + 0.5), abs=0.6)
            left, top, right, bottom = view.window((0, 0, *view.picture.size[::-1]))
            assert left <= 81.5 <= right
            assert top <= 61.5 <= bottom
        moved = [view for view in views if view.name.startswith("moved")]
        assert all(view.offset[0] % 10 and view.offset[1] % 10 for view in moved)


def stability(region, picture, make, base=None):
    from attnlib.interpretation.views import stability_of

    base = base or make(picture)
    return stability_of(
        [region], ["highest"], base, picture, make, (0.5, 1.5, 3.0), text=False, progress=nothing
    )[region.name]


def test_a_model_that_follows_the_picture_is_stable_and_its_range_holds_the_share(scene):
    from attnlib import Regions

    picture, region = scene
    own = Regions((region,), SIZE).shares(follows_content(picture))["box"]
    assert own["lift"].item() > 3.2
    found = stability(region, picture, follows_content)
    assert found.stable
    assert found.same_band == 8
    assert found.low <= own["share"].item() <= found.high
    assert found.high - found.low < 0.12  # a box of four patches, moved by a part of one
    assert "in 8 of 8" in found.sentence("highest")


def test_a_map_that_jumps_is_called_unstable(scene):
    from attnlib import Relevance, TokenLayout

    picture, region = scene
    rng = np.random.default_rng(3)

    def jumps(_, place=None):
        heat = torch.full(GRID, 0.1, dtype=torch.float64)
        heat[rng.integers(GRID[0]), rng.integers(GRID[1])] = 50
        return Relevance(heat.reshape(1, -1), TokenLayout(GRID, 10))

    found = stability(region, picture, jumps, follows_content(picture))
    assert not found.stable
    assert "only" in found.sentence("highest")
    assert found.to_dict()["stable"] is False


def test_padding_is_no_part_of_the_area_that_a_band_is_measured_by(scene):
    from attnlib import Region, Relevance, TokenLayout
    from attnlib.interpretation.views import stability_of
    from attnlib.picture import View

    seen = torch.arange(GRID[0] * GRID[1])[None] < 5 * GRID[1]  # below is padding
    even = Relevance(
        torch.ones(1, GRID[0] * GRID[1]), TokenLayout(GRID, 10), views=(View.whole(SIZE, SIZE),), seen=seen
    )
    mask = np.zeros(SIZE, bool)
    mask[:50, :50] = True
    found = stability_of(
        [Region("corner", mask)], ["low"], even, scene[0], lambda *_: even, (0.5, 1.5, 3.0), text=True,
        progress=nothing,
    )  # fmt: skip
    assert found["corner"].same_band == 8  # an even map gives every part its even share


def position(region, picture, make):
    from attnlib import Regions
    from attnlib.interpretation.place import position_shares

    own = Regions((region,), SIZE).shares(make(picture))["box"]["share"].item()
    return position_shares([region], [own], picture, make, nothing)["box"]


def test_because_of_what_is_there_is_only_said_where_the_place_alone_gets_less(scene):
    picture, region = scene
    content = position(region, picture, follows_content)
    assert content.exceeds
    assert len(content.shares) >= 4
    assert "because of what is there" in content.sentence()
    centre = position(region, picture, always_the_centre)
    assert not centre.exceeds
    assert "the place alone may explain" in centre.sentence()


def test_scrambled_pictures_keep_colour_and_spectrum_and_lose_the_form(scene):
    from attnlib.interpretation.place import content_free

    rng = np.random.default_rng(2)
    from attnlib import Picture

    soft = np.clip(rng.normal(128, 6, (*SIZE, 3)) + 40 * (scene[1].mask[..., None]), 0, 255).astype(np.uint8)
    free = content_free(Picture(soft))
    assert len(free) == 5
    assert free["mean colour"].pixels.std(axis=(0, 1)).max() == 0
    for name, other in free.items():
        assert other.size == SIZE
        assert other.pixels.mean(axis=(0, 1)) == pytest.approx(soft.mean(axis=(0, 1)), abs=1.0)
        if name == "mean colour":
            continue
        assert other.pixels.std() == pytest.approx(soft.std(), rel=0.1)
        form = np.corrcoef(other.pixels[..., 0].ravel(), soft[..., 0].ravel())[0, 1]
        assert abs(form) < 0.5


def squares(*places):
    from attnlib import Region

    regions = []
    for number, (row, column) in enumerate(places):
        mask = np.zeros((64, 96), bool)
        mask[row : row + 12, column : column + 16] = True
        regions.append(Region(f"part {number}", mask))
    return regions


def causal(model, regions, attended, **options):
    from attnlib.interpretation.causal import causal_check
    from attnlib.picture import View

    rng = torch.Generator().manual_seed(5)
    pixels = torch.rand(1, 3, 64, 96, generator=rng)
    pixels[..., 5:17, 8:24] += torch.linspace(0, 4, 16)
    inputs = {"pixel_values": pixels}
    return causal_check(
        regions,
        attended,
        model,
        inputs,
        View.whole((64, 96), (64, 96)),
        (64, 96),
        progress=nothing,
        **options,
    )


def test_a_part_that_makes_the_answer_is_used_and_one_that_does_not_is_little_used():
    calls = []

    def model(pixel_values):
        calls.append(1)
        used = (pixel_values[..., 5:17, 8:24] ** 2).sum(dim=(1, 2, 3))
        rest = 0.001 * (pixel_values**2).sum(dim=(1, 2, 3)) + 0.05 * pixel_values[..., :, 48:].pow(2).sum(
            dim=(1, 2, 3)
        )
        return {"logits": torch.stack([used + rest, used * 0], dim=1)}

    regions = squares((5, 8), (45, 20))
    found = causal(model, regions, [True, True])
    assert found.uses["part 0"].words == "attended and used"
    assert found.uses["part 1"].verdict == "little used"
    assert found.uses["part 1"].words == "attended, little used"
    assert len(calls) == found.forwards == 1 + found.pool + 4 <= 70
    assert found.pool == 40
    little = causal(model, regions, [False, False])
    assert little.uses["part 0"].words == "little attended, but used"
    assert "of 40 random masks" in little.uses["part 0"].sentence()


def test_for_a_map_the_change_inside_the_hidden_part_stands_apart():
    def model(pixel_values):
        return {"saliency": pixel_values.mean(dim=1).sigmoid()}  # every place depends on itself only

    use = causal(model, squares((5, 8)), [True]).uses["part 0"]
    assert max(use.changes.values()) < 1e-6
    assert min(use.inside.values()) > 0.01


def test_a_constant_answer_makes_no_part_used():
    found = causal(lambda pixel_values: {"logits": torch.ones(1, 3)}, squares((5, 8)), [True])
    assert found.uses["part 0"].verdict != "used"


def test_random_masks_lie_off_the_parts_and_have_their_size():
    from attnlib import Regions
    from attnlib.interpretation.causal import random_masks

    regions = squares((5, 8), (45, 20))
    hidden = Regions(tuple(regions), (64, 96)).on_grid((64, 96))
    masks = random_masks(hidden, np.random.default_rng(1))
    assert len(masks) == 40
    for mask in masks:
        assert float((mask * hidden.amax(dim=0)).sum()) <= 0.05 * float(mask.sum()) + 1
        assert float(mask.sum()) == pytest.approx(12 * 16, rel=0.12)
    assert len({tuple(torch.nonzero(mask)[0].tolist()) for mask in masks}) > 25


def test_where_no_room_is_left_the_check_is_refused():
    from attnlib import Region
    from attnlib.errors import NeedsError

    with pytest.raises(NeedsError, match="random masks"):
        causal(
            lambda pixel_values: {"logits": torch.ones(1, 3)},
            [Region("all", np.ones((64, 96), bool))],
            [True],
        )


def test_fourteen_parts_stay_within_seventy_forwards():
    from attnlib import Region

    regions = []
    for number in range(20):
        mask = np.zeros((64, 96), bool)
        mask[3 * number : 3 * number + 2, 2:9] = True
        regions.append(Region(f"line {number}", mask))
    found = causal(lambda pixel_values: {"logits": pixel_values.mean(dim=(2, 3))}, regions, [True] * 20)
    assert found.forwards <= 70
    assert len(found.uses) == 14


def test_unknown_checks_and_checks_without_a_model_are_refused():
    from attnlib import Relevance, TokenLayout, interpret
    from attnlib.errors import InputError

    relevance = Relevance(torch.ones(1, 35), TokenLayout((5, 7), 10))
    with pytest.raises(InputError, match="no check 'magic'"):
        interpret(relevance, checks="magic")
    with pytest.raises(InputError, match="empty selection"):
        interpret(relevance, checks=[])
    with pytest.raises(InputError, match="picture= and model="):
        interpret(relevance, checks="all")
