"""The static twin shows the same map at the same place."""

import dataclasses

import numpy as np
import pytest
import torch


def test_static_overlay_colours_exactly_the_patches_of_each_shade(relevance, picture):
    from attnlib import band_map
    from attnlib.viz import PALETTES, overlay_image

    image = overlay_image(relevance, picture, opacity=1.0, legend=False, longest=730)
    assert image.size == (410, 730)
    pixels, shades = np.asarray(image), band_map(relevance).shades[0].numpy()
    for row in range(7):
        for column in range(5):
            centre = pixels[int((row + 0.5) * 730 / 7), int((column + 0.5) * 82)]
            colour = PALETTES["bands"].colours[shades[row, column]]
            if colour is None:
                assert len(set(centre.tolist())) == 1, "transparent: the grey picture shows"
            else:
                assert tuple(centre) == colour


def test_static_overlay_leaves_alone_what_the_model_did_not_see(relevance, picture):
    from attnlib.picture import View
    from attnlib.viz import overlay_image, picture_image

    view = View((73, 41), (98, 70), (8.2, 0.0, 41.0, 73.0))
    seen = dataclasses.replace(relevance, views=(view, view))
    image = np.asarray(overlay_image(seen, picture, opacity=1.0, legend=False, longest=730))
    plain = np.asarray(picture_image(picture, longest=730, grey=True))
    assert np.array_equal(image[:, :75], plain[:, :75])
    assert not np.array_equal(image[:, 90:], plain[:, 90:])


def test_a_crop_to_one_patch_of_a_thousand_pixels_is_drawn_from_edge_to_edge(picture):
    import torch

    from attnlib import Relevance, TokenLayout
    from attnlib.viz import overlay_image

    one = Relevance(torch.ones(1, 1), TokenLayout((1, 1), 14))
    pixels = np.asarray(overlay_image(one, picture, style="bands", opacity=1.0, legend=False, longest=146))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 1


def test_map_image_uses_the_limits_it_is_given():
    from attnlib.viz import map_image
    from attnlib.viz.theme import colour_map

    values = np.array([[0.0, 1.0, 2.0], [4.0, 5.0, -1.0]])
    pixels = np.asarray(map_image(values, limits=(0.0, 4.0)))
    table = colour_map("viridis")
    assert pixels[0, 0].tolist() == table[0].tolist()
    assert pixels[0, 1].tolist() == table[64].tolist()
    assert pixels[1, 0].tolist() == pixels[1, 1].tolist() == table[255].tolist()


def test_the_legend_makes_room_for_every_line(relevance, picture):
    from attnlib.viz import overlay_image

    bare = overlay_image(relevance, picture, legend=False, longest=200)
    whole = overlay_image(relevance, picture, longest=200)
    assert whole.width > bare.width
    assert whole.height >= 300
    # nothing is written on the last rows: the legend is not cut off
    assert (np.asarray(whole)[-4:, bare.width :] == 255).all()


def test_a_strip_needs_a_caption_for_each_image(picture):
    from attnlib.errors import InputError
    from attnlib.viz import picture_image, strip_image

    image = picture_image(picture, longest=50)
    assert strip_image([image] * 5, list("abcde"), columns=3).height == 2 * (50 + 25)
    with pytest.raises(InputError, match="one caption"):
        strip_image([image], [])


def test_captions_of_a_wide_strip_grow_with_it_but_not_out_of_their_picture(picture):
    from attnlib.viz import picture_image, strip_image

    image = picture_image(picture, longest=620)

    def caption_height(captions):
        strip = np.asarray(strip_image([image] * len(captions), captions))
        return int((strip[: -image.height - 6] < 128).any(axis=(1, 2)).sum())

    few, many = caption_height(["Mp"] * 2), caption_height(["Mp"] * 4)
    assert many > 1.4 * few
    assert caption_height(["Mp " * 30] * 4) < many


def test_a_drawn_map_and_a_strip_say_in_words_what_they_show(relevance, picture):
    from attnlib.viz import overlay_image, picture_image, strip_image

    image = overlay_image(relevance, picture, longest=73)
    assert "rollout, seen from: class" in image.alt
    assert "Highest patch: row 3 of 7, column 4 of 5" in image.alt
    bare = overlay_image(relevance, picture, longest=73, legend=False)
    strip = strip_image([picture_image(picture, longest=73), bare], ["the picture", "mapped"])
    assert strip.alt.startswith(f"2 pictures. the picture {picture.name}. mapped: rollout")
    data, about = strip._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert about == {"alt": strip.alt}


def test_a_matrix_has_a_still_twin_with_its_colours():
    from attnlib.viz import attention_matrix

    weights = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.25, 0.25]])
    names = {"queries": ["a", "b"], "keys": ["x", "y", "z"]}
    still = attention_matrix(weights, **names, limits=(0, 1), title="<i>").still()
    assert still.alt == "<i>: matrix of 2 queries and 3 keys; strongest: a looks at y, 1.00."
    pixels = np.asarray(still)
    corners = [
        tuple(pixels[140 + 40 * row + 3, 110 + 40 * column + 3]) for row in (0, 1) for column in (0, 1)
    ]
    assert corners[0] == (68, 1, 84)
    assert corners[1] == (253, 231, 37)
    assert len(set(corners)) == 4


def test_an_overlay_has_a_still_twin_and_what_has_none_says_so(relevance, picture):
    from attnlib import overlay
    from attnlib.errors import InputError
    from attnlib.viz import attention_matrix

    assert "rollout, seen from: class" in overlay(relevance, picture).still().alt
    with pytest.raises(InputError, match="no still picture"):
        overlay(relevance, picture, style="continuous", values="score").still()
    with pytest.raises(InputError, match="no still picture"):
        attention_matrix(torch.full((2, 3), float("nan")), limits=(0, 1)).still()
