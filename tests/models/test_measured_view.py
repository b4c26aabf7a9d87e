"""Views measured with rulers: any resizing, cropping and padding, and a refusal of anything else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps


def pixels(image: Image.Image) -> np.ndarray:
    return (np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255 - 0.45) / 0.22


def measured(process, size, input_size):
    from attnlib.models.measured_view import measure_view

    return measure_view(process, size, input_size)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(40, 700),
    width=st.integers(40, 700),
    crop=st.floats(0.6, 1.0),
    side=st.sampled_from([32, 97, 224]),
)
def test_resize_and_centre_crop_is_found_again(height, width, crop, side):
    def process(image):
        return pixels(image.resize((side, side), Image.Resampling.BICUBIC, box=box))

    left, top = width * (1 - crop) / 2, height * (1 - crop) / 3
    box = (left, top, left + width * crop, top + height * crop)
    view = measured(process, (height, width), (side, side))
    for got, true, length in zip(view.box, box, (width, height, width, height), strict=True):
        assert abs(got - true) < 0.006 * length


def test_padding_is_found_whatever_its_colour():
    for colour in ((0, 0, 0), (255, 255, 255), (123, 116, 103)):

        def process(image, colour=colour):
            return pixels(ImageOps.pad(image, (96, 96), color=colour))

        view = measured(process, (50, 100), (96, 96))
        np.testing.assert_allclose(view.box, (0, -25, 100, 75), atol=0.8)
        assert "padding was added" in view.notes[0]


def test_what_was_cut_off_is_said():
    view = measured(lambda image: pixels(ImageOps.fit(image, (64, 64))), (100, 200), (64, 64))
    np.testing.assert_allclose(view.box, (50, 0, 150, 100), atol=0.8)
    assert "left 25" in view.notes[0]
    assert "right 25" in view.notes[0]


def test_a_picture_that_is_only_resized_is_seen_whole_and_its_new_shape_is_said():
    view = measured(lambda image: pixels(image.resize((64, 64))), (100, 200), (64, 64))
    assert view.box == (0, 0, 200, 100)
    assert "narrower" in view.notes[0]
    assert "0.50" in view.notes[0]


@pytest.mark.parametrize(
    "process",
    [
        lambda image: pixels(ImageOps.mirror(image)),
        lambda image: pixels(ImageOps.flip(image)),
        lambda image: pixels(image.rotate(90, expand=True)),
        lambda image: pixels(image.rotate(20)),
        lambda image: np.tile(pixels(image.resize((32, 32))), (1, 2, 2)),
    ],
    ids=["mirrored", "upside down", "turned", "slanted", "tiled"],
)
def test_anything_but_an_upright_rectangle_is_refused(process):
    from attnlib.errors import PictureError

    with pytest.raises(PictureError, match="cannot be drawn"):
        measured(process, (60, 60), (60, 60))


def test_a_processor_that_shows_nothing_is_refused():
    from attnlib.errors import PictureError

    with pytest.raises(PictureError, match="nothing"):
        measured(lambda image: np.zeros((3, 8, 8)), (60, 60), (8, 8))


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("size", [(5, 8), (7, 4), (16, 31)])
def test_a_small_picture_that_is_enlarged_is_seen_whole(size, resample):
    view = measured(lambda image: pixels(image.resize((96, 96), resample)), size, (96, 96))
    np.testing.assert_allclose(view.box, (0, 0, size[1], size[0]), atol=0.05 * max(size))


def test_a_picture_too_small_to_be_measured_is_refused_for_that_reason():
    from attnlib.errors import PictureError

    with pytest.raises(PictureError, match="only 1 pixel from left to right"):
        measured(lambda image: pixels(image.resize((96, 96))), (50, 1), (96, 96))
