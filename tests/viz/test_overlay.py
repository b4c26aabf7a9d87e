"""The overlay: the numbers of the map, at the place where the model looked."""

import dataclasses

import numpy as np
import pytest
import torch


def test_overlay_holds_the_shades_of_the_bands_unchanged(relevance, picture):
    from attnlib import band_map, overlay

    figure = overlay(relevance, picture, index=1)
    assert np.array_equal(figure.data[0].z, band_map(relevance).shades[1].numpy())
    assert figure.data[0].zmin == -0.5
    assert figure.data[0].zmax == 4.5


@pytest.mark.parametrize("values", ["lift", "share", "score"])
def test_continuous_overlay_holds_the_values_unchanged(relevance, picture, values):
    from attnlib import overlay

    wanted = {"lift": relevance.lift, "share": relevance.share, "score": relevance.heatmap}[values]()[0]
    figure = overlay(relevance, picture, style="continuous", values=values)
    assert np.array_equal(figure.data[0].z, wanted.numpy())
    assert figure.data[0].zmin == 0
    assert figure.data[0].zmax == pytest.approx(float(wanted.max()))


def test_signed_scores_get_a_diverging_map_centred_on_zero(relevance, picture):
    from attnlib import overlay

    signed = dataclasses.replace(relevance, scores=relevance.scores - 0.5)
    heat = overlay(signed, picture, style="continuous", values="score").data[0]
    assert heat.zmin == -heat.zmax


def test_limits_are_taken_as_given_so_that_figures_can_be_compared(relevance, picture):
    from attnlib import overlay

    figures = [overlay(relevance, picture, style="continuous", index=i, limits=(0.0, 5.0)) for i in (0, 1)]
    assert {(f.data[0].zmin, f.data[0].zmax) for f in figures} == {(0.0, 5.0)}


def test_patches_lie_on_the_whole_picture_without_a_view(relevance, picture):
    from attnlib import overlay

    heat = overlay(relevance, picture).data[0]
    assert (heat.x0, heat.dx) == pytest.approx((41 / 5 / 2, 41 / 5))
    assert (heat.y0, heat.dy) == pytest.approx((73 / 7 / 2, 73 / 7))


def test_patches_lie_where_the_model_looked_when_the_picture_was_cropped(relevance, picture):
    from attnlib import overlay
    from attnlib.picture import View

    view = View((73, 41), (98, 70), (3.0, 11.0, 38.0, 60.0), ("cropped at the centre",))
    seen = dataclasses.replace(relevance, views=(view, view))
    figure = overlay(seen, picture)
    heat = figure.data[0]
    assert (heat.x0 - heat.dx / 2, heat.y0 - heat.dy / 2) == pytest.approx((3, 11))
    assert (heat.x0 + 4.5 * heat.dx, heat.y0 + 6.5 * heat.dy) == pytest.approx((38, 60))
    assert len(figure.layout.shapes) == 1
    assert "cropped at the centre" in figure.layout.annotations[0].text


def test_another_picture_than_the_map_was_made_from_is_refused(relevance, picture):
    from attnlib import overlay
    from attnlib.errors import InputError
    from attnlib.picture import View

    view = View((50, 50), (98, 70), (0.0, 0.0, 50.0, 50.0))
    with pytest.raises(InputError, match="50x50"):
        overlay(dataclasses.replace(relevance, views=(view, view)), picture)


@pytest.mark.parametrize(
    "wrong",
    [{"style": "jet"}, {"palette": "rainbow"}, {"index": 2}, {"opacity": 1.5}],
)
def test_wrong_options_are_refused_by_name(relevance, picture, wrong):
    from attnlib import overlay
    from attnlib.errors import InputError

    with pytest.raises(InputError):
        overlay(relevance, picture, **wrong)


def test_legend_and_facts_state_the_numbers_of_the_bands(relevance, picture):
    from attnlib import band_map, overlay
    from attnlib.bands import percent

    figure, bands = overlay(relevance, picture), band_map(relevance)
    legend = {trace.name for trace in figure.data[1:]}
    for shade in range(5):
        mass = percent(bands.shade_share[0, shade])
        assert any(f"{mass} of mass" in name for name in legend)
    words = figure.layout.annotations[0].text
    assert f"row 3 of 7, column 4 of 5, {float(bands.lift.max()):.1f}x" in words
    assert percent(relevance.prefix_share()[0]) in words
    assert percent(relevance.effective_share()[0]) in words


def test_a_flat_map_says_that_nothing_stands_out(picture):
    from attnlib import Relevance, TokenLayout, overlay

    flat = Relevance(torch.ones(1, 35), TokenLayout((7, 5), 14))
    assert "No part stands out" in overlay(flat, picture).layout.annotations[0].text


def test_patches_that_may_be_artifacts_are_named_where_they_show(picture):
    from attnlib import Relevance, TokenLayout, overlay

    scores = torch.full((1, 35), 0.001)
    scores[0, 17] = 1.0
    words = overlay(Relevance(scores, TokenLayout((7, 5), 14)), picture).layout.annotations[0].text
    assert "Very strong: 1 patch has 20x or more" in words
    assert "artifact" in words


def test_the_share_that_a_method_starts_from_is_set_aside_and_said(relevance, picture):
    from attnlib import band_map, overlay

    identity = torch.zeros_like(relevance.scores)
    identity[:, 1 + 2 * 5 + 3] = 5.0
    scores = relevance.scores + identity
    seen_from_patch = dataclasses.replace(relevance, scores=scores, identity=identity)
    figure = overlay(seen_from_patch, picture)
    assert np.array_equal(figure.data[0].z, band_map(relevance).shades[0].numpy())
    assert "Set aside" in figure.layout.annotations[0].text


def test_hostile_words_are_escaped_in_the_figure(relevance, picture):
    from attnlib import overlay
    from attnlib.picture import View

    view = View((73, 41), (98, 70), (0.0, 0.0, 41.0, 73.0), ("<img src=x onerror=alert(1)>",))
    figure = overlay(dataclasses.replace(relevance, views=(view, view)), picture)
    assert "<img" not in figure.layout.annotations[0].text


def test_numbers_stand_inside_the_areas_that_they_name(relevance):
    from attnlib.viz.marks import areas

    shades = np.zeros((7, 11), dtype=np.int64)
    shades[1:4, 2:7] = 3
    shades[5, 0:2] = 1  # too small for a mark
    shades[6, 4:11] = 1
    found = areas(shades)
    assert {shade for _, _, shade in found} == {1, 3}
    assert all(shades[row, column] == shade for row, column, shade in found)


def test_colours_of_both_palettes_can_be_told_apart_also_by_colour_blind_readers():
    from attnlib.viz import PALETTES

    # Machado, Oliveira & Fernandes 2009, severity 1
    sights = {
        "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    }
    colours = np.array(PALETTES["colour-blind"].colours[1:]) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    for sight, matrix in sights.items():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        lab = _lab(seen)
        apart = [np.linalg.norm(lab[i] - lab[j]) for i in range(4) for j in range(i)]
        assert min(apart) > 20, f"{sight}: {apart}"
    assert PALETTES["colour-blind"].numbered


def _lab(linear):
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    f = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)


def test_continuous_colour_maps_grow_lighter_or_darker_all_the_way():
    from attnlib.viz.theme import colour_map

    for name in ("viridis", "inferno", "cividis"):
        luma = colour_map(name).astype(float) @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(luma) > -0.8).all(), name
