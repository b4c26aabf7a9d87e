"""Mass planted on a known region must be named in the right band; moving the mass moves the words."""

import json
import re

import numpy as np
import pytest
import torch

GRID, PATCH = (17, 23), 10
BOXES = {"title": (2, 4, 2, 19), "portrait": (6, 12, 7, 16), "foot": (14, 16, 5, 17)}  # rows, columns


@pytest.fixture
def regions():
    from attnlib import Regions

    masks = {}
    for name, (top, bottom, left, right) in BOXES.items():
        mask = np.zeros((GRID[0] * PATCH, GRID[1] * PATCH), bool)
        mask[top * PATCH : bottom * PATCH, left * PATCH : right * PATCH] = True
        masks[name] = mask
    return Regions.from_masks(masks)


def planted(levels, rest=1.0, prefix=2.0):
    """Return a relevance in which each region has a level; the rest of the picture has another."""
    from attnlib import Relevance, TokenLayout

    heat = torch.full(GRID, float(rest), dtype=torch.float64)
    for name, level in levels.items():
        top, bottom, left, right = BOXES[name]
        heat[top:bottom, left:right] = level
    scores = torch.cat([torch.tensor([prefix], dtype=torch.float64), heat.flatten()])
    return Relevance(scores[None], TokenLayout(GRID, PATCH, 1, (0,)), "rollout", query="class")


@pytest.mark.parametrize("where", list(BOXES))
def test_mass_planted_on_a_region_is_named_in_the_highest_band(regions, where):
    from attnlib import interpret

    text = interpret(planted({where: 20.0}), regions)
    assert text.claims[0].region == where
    assert text.claims[0].band == "highest"
    others = [claim for claim in text.claims if claim.region in BOXES and claim.region != where]
    assert {claim.band for claim in others} == {"minimal"}
    assert f'"{where}"' in " ".join(text.section("highest").lines)
    for other in set(BOXES) - {where}:
        assert f'"{other}"' not in " ".join(text.section("highest").lines)
        assert f'"{other}"' in " ".join(text.section("minimal").lines)


def test_each_level_of_attention_lands_in_its_own_section(regions):
    from attnlib import interpret

    text = interpret(planted({"title": 20, "portrait": 9, "foot": 4}, rest=1.0), regions)
    bands = {claim.region: claim.band for claim in text.claims}
    lifts = {claim.region: claim.lift for claim in text.claims}
    assert lifts["title"] >= 3 > lifts["portrait"] >= 1.5 > lifts["foot"] >= 0.5 > lifts["the background"]
    assert [bands[name] for name in (*BOXES, "the background")] == ["highest", "moderate", "low", "minimal"]
    keys = [section.key for section in text.sections]
    assert keys[:7] == ["subject", "short", "colours", "highest", "moderate", "low", "minimal"]


def test_numbers_of_the_text_are_those_of_the_table_and_the_figure(regions):
    from attnlib import band_map, interpret

    relevance = planted({"title": 20, "portrait": 9, "foot": 4})
    text = interpret(relevance, regions)
    shares = regions.shares(relevance)
    frame = text.to_frame().set_index("region")
    for claim in text.claims:
        if claim.region not in BOXES:
            continue
        assert claim.share == pytest.approx(shares[claim.region]["share"].item(), abs=1e-6)
        assert claim.area == pytest.approx(shares[claim.region]["area"].item(), abs=1e-6)
        assert claim.lift == pytest.approx(shares[claim.region]["lift"].item(), abs=1e-5)
        assert frame.loc[claim.region, "share"] == claim.share
        assert f"{100 * claim.share:.1f} % of the attention" in claim.text
        assert f"{100 * claim.area:.1f} % of the picture" in claim.text
    bands = band_map(relevance)
    for line, band in zip(text.section("colours").lines[1:], (3, 2, 1, 0), strict=True):
        written = [float(number) for number in re.findall(r"([\d.]+) %", line)]
        assert written == pytest.approx(
            [100 * bands.area[0, band].item(), 100 * bands.share[0, band].item()], abs=0.051
        )


def test_moving_the_mass_moves_the_words(regions):
    from attnlib import interpret

    before = interpret(planted({"title": 20}), regions).section("short").lines[0]
    after = interpret(planted({"foot": 20}), regions).section("short").lines[0]
    assert '"title"' in before
    assert '"foot"' not in before
    assert '"foot"' in after
    assert '"title"' not in after


def test_uniform_attention_says_that_no_part_stands_out(regions):
    from attnlib import interpret

    for given in (regions, None):
        text = interpret(planted({}), given)
        assert "No part stands out" in text.section("short").lines[0]
        assert {claim.band for claim in text.claims} == {"low"}
        assert "get the most" not in text.to_text()
        assert "the part with the most" not in text.to_text()


@pytest.mark.parametrize("sign", [0.0, -1.0])
def test_a_map_without_positive_scores_is_called_empty(regions, sign):
    from attnlib import interpret

    relevance = planted(dict.fromkeys(BOXES, sign), rest=sign, prefix=0.0)
    text = interpret(relevance, regions)
    assert text.claims == ()
    assert "The map is empty" in text.to_text()
    json.loads(text.to_json())


def test_equal_parts_are_called_a_tie(regions):
    from attnlib import interpret

    heat = {"title": 15, "portrait": 15, "foot": 15}
    text = interpret(planted(heat), regions)
    assert "3 parts tie" in text.to_text()


def test_without_regions_the_text_speaks_of_places():
    from attnlib import interpret

    text = interpret(planted({"foot": 40.0}))
    standing_out = [claim.region for claim in text.claims if claim.band in ("moderate", "highest")]
    assert standing_out == ["the lower centre", "the lower left", "the lower half", "the centre third"]
    assert all(claim.kind in ("position", "several") for claim in text.claims)
    assert "the lower half" in text.section("picture").lines[-2]


@pytest.mark.parametrize(
    ("grid", "size", "told", "said"),
    [
        ((5, 7), (50, 70), 9, []),
        ((1, 7), (10, 70), 3, ["Above and below are not told apart", "1 row of patches"]),
        ((5, 2), (50, 20), 3, ["Left and right are not told apart", "2 columns of patches"]),
        ((5, 7), (1, 1), 0, ["the picture is 1 pixel high", "the picture is 1 pixel wide"]),
    ],
)
def test_places_that_picture_or_grid_cannot_tell_apart_are_not_named(grid, size, told, said):
    from attnlib import Relevance, TokenLayout, interpret
    from attnlib.picture import View

    heat = torch.ones(grid, dtype=torch.float64)
    heat[0, 0] = 9.0
    view = View.whole(size, (grid[0] * PATCH, grid[1] * PATCH))
    layout = TokenLayout(grid, PATCH, 0, (0,))
    text = interpret(Relevance(heat.flatten()[None], layout, "rollout", query="mean", views=(view,)))
    halves = [one for one in text.numbers if one.region.endswith((" half", " third"))]
    border = [one for one in text.numbers if one.region.startswith("the border")]
    assert len(text.numbers) - len(halves) - len(border) == told
    assert len(halves) == {9: 5, 3: 3 if grid[0] == 1 else 2, 0: 0}[told]
    assert text.section("short").lines
    assert ("lies on" in " ".join(text.section("picture").lines)) == bool(told)
    limits = " ".join(text.section("limits").lines)
    assert all(words in limits for words in said)
    assert ("not told apart" in limits) == bool(said)
    shares = [one.share for one in text.numbers if one not in halves and one not in border]
    assert not shares or sum(shares) == pytest.approx(1)


def test_a_long_line_of_text_is_told_by_its_beginning():
    from attnlib import Region, Regions, interpret

    line = 'the words "we hold these truths to be self-evident, that all of them are long"'
    mask = np.zeros((GRID[0] * PATCH, GRID[1] * PATCH), bool)
    mask[20:40, 40:190] = True
    text = interpret(planted({"title": 20.0}), Regions((Region(line, mask, "text"),), mask.shape))
    assert text.claim(line) is not None  # by its whole name
    assert 'the words "we hold these truths to be self-evident…"' in text.section("short").lines[0]
    assert "all of them" not in text.to_text()


def test_the_prefix_token_the_negative_part_and_padding_stand_apart(regions):
    from dataclasses import replace

    from attnlib import interpret

    relevance = planted({"title": 20.0, "foot": -7.0}, prefix=400.0)
    text = interpret(relevance, regions)
    total = (400 + relevance.heatmap().clamp(min=0).sum()).item()
    limits = " ".join(text.section("limits").lines)
    assert f"{100 * 400 / total:.1f} % of all positive mass lies on tokens" in limits
    assert text.claim("foot").share == 0
    assert text.to_frame().set_index("region").loc["foot", "negative"] == pytest.approx(1.0)
    seen = torch.ones(1, 1 + GRID[0] * GRID[1], dtype=torch.bool)
    seen[:, -GRID[1] * 3 :] = False
    padded = interpret(replace(planted({"foot": 50.0}), seen=seen), regions)
    assert padded.claim("foot") is None
    assert "69 of them padding" in padded.section("subject").lines[0]


def test_the_identity_is_subtracted_before_anything_is_said(regions):
    from dataclasses import replace

    from attnlib import interpret

    plain = planted({"title": 20.0})
    identity = torch.zeros_like(plain.scores)
    identity[0, plain.layout.token_index(8, 10)] = 500.0
    text = interpret(replace(plain, scores=plain.scores + identity, identity=identity), regions)
    assert text.claim("portrait").share == pytest.approx(interpret(plain, regions).claim("portrait").share)
    assert "it was subtracted" in text.to_text()


def test_at_most_twelve_claims_and_the_rest_is_told_together():
    from attnlib import Region, Regions, interpret

    rng = np.random.default_rng(5)
    items = []
    for row in range(16):
        for half in range(2):
            mask = np.zeros((170, 230), bool)
            mask[row * 10 : row * 10 + 7, half * 115 + 5 : half * 115 + 100] = True
            items.append(Region(f'the words "line {row} {half}"', mask, "text", "rapidocr"))
    from attnlib import Relevance, TokenLayout

    scores = torch.tensor(rng.random((1, 17 * 23)) ** 4)
    text = interpret(Relevance(scores, TokenLayout(GRID, PATCH)), Regions(tuple(items), (170, 230)))
    assert len(text.claims) <= 12
    told = [name for claim in text.claims for name in claim.members]
    assert {item.name for item in items} <= set(told)
    assert len(told) == len(set(told))
    assert "further lines of text" in text.to_text()


def test_a_batch_needs_a_choice_and_the_choice_is_followed(regions):
    from dataclasses import replace

    from attnlib import interpret
    from attnlib.errors import InputError

    first, second = planted({"title": 20.0}), planted({"foot": 20.0})
    both = replace(first, scores=torch.cat([first.scores, second.scores]))
    with pytest.raises(InputError, match="index=0"):
        interpret(both, regions)
    assert interpret(both, regions, index=1).claims[0].region == "foot"
    with pytest.raises(InputError, match="no item 2"):
        interpret(both, regions, index=2)


def test_rank_scale_is_called_rank(regions):
    from attnlib import interpret

    text = interpret(planted({"title": 20.0}), regions, scale="mass")
    assert "rank of a patch within this picture" in " ".join(text.section("colours").lines)
    assert text.map_numbers.bands.scale == "mass"


def test_other_cuts_are_the_ones_in_the_text(regions):
    from attnlib import interpret

    text = interpret(planted({"title": 20.0}), regions, cuts=(0.25, 2, 9))
    assert text.claim("title").band == "moderate"
    assert "2 to 9 times" in " ".join(text.section("colours").lines)
