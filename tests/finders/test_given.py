"""What a person gives is used as given, or refused by name."""

import json

import numpy as np
import pytest
from PIL import Image

SIZE = (47, 61)


@pytest.fixture
def picture():
    from attnlib import Picture

    return Picture(np.full((*SIZE, 3), 90, np.uint8), "scene.png")


def find(picture, **given):
    from attnlib import find_regions

    return find_regions(picture, text=False, faces=False, **given)


def test_boxes_become_regions_and_the_rest_is_background(picture):
    regions = find(picture, boxes={"dog": (5, 7, 20, 30), "two cats": [(30, 2, 40, 9), (45, 2, 50, 9)]})
    assert regions["dog"].area * SIZE[0] * SIZE[1] == pytest.approx(15 * 23)
    assert regions["two cats"].mask.sum() == 10 * 7 + 5 * 7
    rest = regions["the background"].mask
    assert rest.sum() == SIZE[0] * SIZE[1] - 15 * 23 - 105
    assert not (rest & regions["dog"].mask).any()
    assert "Given by hand: 2." in regions.notes


def test_boxes_without_names_are_numbered(picture):
    for given in ([(5, 7, 20, 30), (30, 2, 40, 9)], np.array([[5, 7, 20, 30], [30, 2, 40, 9]])):
        regions = find(picture, boxes=given)
        assert {"box 1", "box 2"} <= set(regions.names)
        assert regions["box 2"].mask.sum() == 10 * 7


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((20, 7, 5, 30), "is empty"),
        ((100, 100, 120, 130), "outside"),
        ((1, 2, 3), "must be"),
        ("left", "must be"),
        ([(1, 2, 3, 4), (1, 2)], "must be"),
        (None, "must be"),
        ((0, 0, np.nan, 4), "must be"),
    ],
)
def test_boxes_that_cannot_be_used_are_refused_by_name(picture, box, words):
    from attnlib.errors import InputError

    with pytest.raises(InputError, match=f"'dog'.*{words}"):
        find(picture, boxes={"dog": box})


def test_masks_come_as_arrays_and_png_files(picture, tmp_path):
    array = np.zeros(SIZE, bool)
    array[3:9, 4:20] = True
    Image.fromarray(array).save(tmp_path / "one.png")
    Image.fromarray((array[::-1] * 255).astype(np.uint8)).save(tmp_path / "two.png")
    regions = find(picture, masks={"a": tmp_path / "one.png", "b": tmp_path / "two.png"})
    assert np.array_equal(regions["a"].mask > 0, array)
    assert np.array_equal(regions["b"].mask > 0, array[::-1])


def test_masks_of_another_size_or_without_a_pixel_are_refused(picture):
    from attnlib.errors import InputError

    with pytest.raises(InputError, match="'a' is 5x5 px, the picture 61x47"):
        find(picture, masks={"a": np.ones((5, 5))})
    with pytest.raises(InputError, match="'a' is empty"):
        find(picture, masks={"a": np.zeros(SIZE)})


def coco():
    return {
        "images": [
            {"id": 4, "file_name": "other.png", "height": 10, "width": 10},
            {"id": 9, "file_name": "folder/scene.png", "height": SIZE[0], "width": SIZE[1]},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"image_id": 9, "category_id": 1, "bbox": [5, 7, 15, 23]},
            {"image_id": 9, "category_id": 1, "segmentation": [[30, 2, 40, 2, 40, 9, 30, 9]]},
            {
                "image_id": 9,
                "category_id": 2,
                "segmentation": {"counts": [0, 47, 47 * 60], "size": list(SIZE)},
            },
            {"image_id": 4, "category_id": 2, "bbox": [0, 0, 5, 5]},
        ],
    }


def test_coco_gives_boxes_polygons_and_run_lengths_of_the_right_picture(picture, tmp_path):
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco()))
    for given in (coco(), path):
        regions = find(picture, boxes=given)
        assert {"dog 1", "dog 2", "cat"} <= set(regions.names)
        assert regions["dog 1"].mask.sum() == 15 * 23
        assert regions["dog 2"].mask.sum() == 70
        assert regions["cat"].mask[:, 0].all()
        assert regions["cat"].mask.sum() == 47


def test_a_coco_document_of_another_picture_is_refused(picture):
    from dataclasses import replace

    from attnlib.errors import InputError

    with pytest.raises(InputError, match="0 of them are called 'x"):
        find(replace(picture, name="x.png"), boxes=coco())
    wrong = coco()
    wrong["images"][1]["width"] = 99
    with pytest.raises(InputError, match="describes a picture of 99x47"):
        find(picture, boxes=wrong)


def test_a_segmenter_is_asked_and_its_failure_stops_nothing(picture):
    def halves(pixels):
        mask = np.zeros(pixels.shape[:2], bool)
        mask[:, :30] = True
        return [("thing", mask), ("thing", ~mask), ("nothing", mask & ~mask)]

    regions = find(picture, segmenter=halves)
    assert regions.names == ("thing", "thing 2") or set(regions.names) == {"thing", "thing 2"}
    assert regions["thing"].source == "segmenter halves"

    def broken(pixels):
        raise RuntimeError(f"no memory for {pixels.shape}")

    regions = find(picture, segmenter=broken, boxes={"dog": (5, 7, 20, 30)})
    assert "dog" in regions.names
    assert any("RuntimeError: no memory" in note for note in regions.notes)


def test_positions_are_added_on_request_and_take_no_pixel_from_the_others(picture):
    regions = find(picture, boxes={"dog": (5, 7, 20, 30)}, positions=True)
    assert regions["the upper half"].area == pytest.approx(0.5)
    assert regions["the left third"].area == pytest.approx(1 / 3)
    inside = 0.8 * 0.8
    border = next(region for region in regions if region.name.startswith("the border"))
    assert border.area == pytest.approx(1 - inside, abs=1e-5)
    assert regions["dog"].mask.sum() == 15 * 23
