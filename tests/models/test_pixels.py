"""Pictures for models that take any size: the aspect is kept, the numbers are the processor's."""

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def processor():
    from attnlib.models.pixels import PatchProcessor

    return PatchProcessor(patch_size=7, size=70)


@pytest.mark.parametrize(
    ("picture", "size", "expected"),
    [
        ((100, 100), None, (70, 70)),
        ((200, 100), None, (70, 35)),
        ((100, 300), None, (21, 70)),
        ((10, 1000), None, (7, 70)),
        ((90, 60), 140, (140, 91)),
        ((90, 60), (21, 49), (21, 49)),
    ],
)
def test_the_longer_side_gets_the_size_and_both_are_whole_patches(processor, picture, size, expected):
    assert processor.input_size(picture, size) == expected


@pytest.mark.parametrize("size", [3, (20, 49), (0, 7)])
def test_sizes_that_hold_no_whole_patches_are_refused(processor, size):
    from attnlib.errors import InputError

    with pytest.raises(InputError, match="patch"):
        processor.input_size((90, 60), size)


def test_pixels_are_normalised_like_the_library_does():
    from transformers import ViTImageProcessor

    from attnlib.models.pixels import PatchProcessor

    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    theirs = ViTImageProcessor(
        size={"height": 35, "width": 35}, image_mean=mean, image_std=std, resample=Image.Resampling.BILINEAR
    )
    expected = theirs(images=[image], return_tensors="pt")["pixel_values"][0]
    ours = PatchProcessor(7, 35, mean, std, Image.Resampling.BILINEAR).pixels(image, (35, 35))
    # one step of 8 bits: their resizing may round differently
    torch.testing.assert_close(ours, expected, atol=1.01 / 255 / 0.1, rtol=0)


def test_pictures_of_different_shapes_need_one_size(processor):
    from attnlib.errors import PictureError

    tall, wide = Image.new("RGB", (50, 90)), Image.new("RGB", (90, 50))
    with pytest.raises(PictureError, match="one by one"):
        processor([tall, wide])
    prepared = processor([tall, wide], size=(35, 35))
    assert prepared.inputs["pixel_values"].shape == (2, 3, 35, 35)
    assert "wider" in prepared.views[0].notes[0]
    assert "narrower" in prepared.views[1].notes[0]


def test_the_batch_is_in_the_order_of_the_pictures(processor):
    black, white = Image.new("RGB", (50, 50)), Image.new("RGB", (50, 50), "white")
    values = processor([black, white]).inputs["pixel_values"]
    assert values[0].max() < values[1].min()
