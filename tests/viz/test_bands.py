"""Bands: what is cut where, and that the numbers beside the colours are the numbers of the map."""

import pytest
import torch


@pytest.fixture
def given():
    """Build a relevance from patch values on a grid, behind one class token."""
    from attnlib import Relevance, TokenLayout

    def build(patches, prefix=0.0, seen=None):
        patches = torch.as_tensor(patches, dtype=torch.float64)
        height, width = patches.shape[-2:]
        scores = torch.cat([torch.full((patches.shape[0], 1), prefix), patches.flatten(1)], dim=1)
        return Relevance(scores.double(), TokenLayout((height, width), 14, 1, 0), seen=seen)

    return build


def test_uniform_relevance_is_low_everywhere_and_nothing_stands_out(given):
    from attnlib import band_map

    bands = band_map(given(torch.ones(2, 5, 7)))
    assert bands.labels.eq(1).all()
    assert bands.stands_out.tolist() == [False, False]
    assert bands.area.tolist() == [[0, 1, 0, 0]] * 2


def test_lift_on_a_cut_belongs_to_the_upper_band(given):
    from attnlib import band_map

    values = torch.tensor([[[0.25, 0.5, 1.5, 3.0, 6.0, 0.75, 0.5, 0.0, 0.0, 0.0]]]) / 12.5
    rest = (1 - values.sum()) / 90
    full = torch.full((1, 10, 10), float(rest))
    full[0, 0] = values[0, 0]
    lift = (full / full.sum() * 100)[0, 0]
    bands = band_map(given(full))
    wanted = [sum(float(x) >= cut for cut in (0.5, 1.5, 3.0)) for x in lift]
    assert bands.labels[0, 0].tolist() == wanted
    assert bands.shades[0, 0].tolist() == [w + (float(x) >= 6.0) for w, x in zip(wanted, lift, strict=True)]


def test_mass_and_area_of_bands_match_a_count_by_hand(given):
    from attnlib import band_map

    torch.manual_seed(5)
    patches = torch.rand(3, 5, 7, dtype=torch.float64) ** 6
    bands = band_map(given(patches, prefix=0.4))
    for item in range(3):
        share = patches[item] / patches[item].sum()
        for band in range(4):
            here = bands.labels[item] == band
            assert float(bands.share[item, band]) == pytest.approx(float(share[here].sum()))
            assert float(bands.area[item, band]) == pytest.approx(int(here.sum()) / 35)
    torch.testing.assert_close(bands.share.sum(1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(bands.shade_share[:, 3:].sum(1), bands.share[:, 3])
    torch.testing.assert_close(bands.shade_area[:, 3:].sum(1), bands.area[:, 3])


def test_bands_do_not_change_when_the_scores_are_scaled_or_the_prefix_grows(given):
    from attnlib import band_map

    patches = torch.rand(1, 5, 7, dtype=torch.float64) ** 4
    one, other = band_map(given(patches)), band_map(given(patches * 1000, prefix=1e5))
    assert torch.equal(one.labels, other.labels)


def test_ranks_give_the_same_red_to_a_flat_map_and_say_so_by_their_scale(given):
    from attnlib import band_map

    patches = torch.linspace(1.0, 1.001, 100, dtype=torch.float64).reshape(1, 10, 10)
    by_lift, by_rank = band_map(given(patches)), band_map(given(patches), scale="mass")
    assert by_lift.labels.max() == 1
    assert by_rank.scale == "mass"
    assert by_rank.area.tolist() == [pytest.approx([0.5, 0.25, 0.15, 0.1])]
    assert int((by_rank.shades == 4).sum()) == 3


def test_padding_is_in_no_band(given):
    from attnlib import band_map

    seen = torch.ones(1, 36, dtype=torch.bool)
    seen[0, 1:8] = False
    bands = band_map(given(torch.ones(1, 5, 7), seen=seen))
    assert bands.labels[0, 0].eq(0).all()
    assert bands.labels[0, 1:].eq(1).all()
    assert bands.area[0].tolist() == [0, 1, 0, 0]
    ranked = band_map(given(torch.rand(1, 5, 7), seen=seen), scale="mass")
    assert float(ranked.area.sum()) == pytest.approx(1)


def test_an_empty_map_has_no_mass_and_no_colour(given):
    from attnlib import band_map

    bands = band_map(given(-torch.ones(1, 5, 7)))
    assert bands.share.sum() == 0
    assert bands.labels.max() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": "rank"}, "scale must be"),
        ({"cuts": (1, 2)}, "three increasing"),
        ({"cuts": (3, 2, 1)}, "three increasing"),
        ({"cuts": ()}, "three increasing"),
        ({"cuts": (0.5, 1.5, float("inf"))}, "three increasing"),
        ({"cuts": (0.5, float("nan"), 3)}, "three increasing"),
        ({"scale": "mass", "cuts": (0.5, 0.9, 1.5)}, "below 1"),
    ],
)
def test_wrong_cuts_are_refused(given, options, words):
    from attnlib import band_map
    from attnlib.errors import InputError

    with pytest.raises(InputError, match=words):
        band_map(given(torch.ones(1, 5, 7)), **options)


def test_scores_that_are_not_finite_are_refused(given):
    from attnlib import band_map
    from attnlib.errors import InputError

    patches = torch.ones(1, 5, 7)
    patches[0, 2, 3] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        band_map(given(patches))
