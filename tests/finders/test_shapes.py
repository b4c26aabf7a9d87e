"""Boxes, polygons and run lengths become the masks they describe."""

import numpy as np
import pytest


def test_a_polygon_that_is_a_box_is_the_box():
    from attnlib.finders.shapes import box_mask, polygon_mask

    corners = [(3, 2), (11, 2), (11, 7), (3, 7)]
    assert np.array_equal(polygon_mask(corners, (13, 17)), box_mask((3, 2, 11, 7), (13, 17)))
    assert np.array_equal(polygon_mask(corners[::-1], (13, 17)), polygon_mask(corners, (13, 17)))


def test_a_turned_square_covers_its_area_and_no_corner_of_its_bounding_box():
    from attnlib.finders.shapes import polygon_mask

    mask = polygon_mask([(50, 10), (90, 50), (50, 90), (10, 50)], (101, 103))
    assert mask.sum() == pytest.approx(80 * 80 / 2, rel=0.02)
    assert mask[50, 50]
    assert not mask[15, 15]


def test_a_polygon_beyond_the_picture_is_cut():
    from attnlib.finders.shapes import polygon_mask

    assert polygon_mask([(-5, -5), (4, -5), (4, 3), (-5, 3)], (7, 11)).sum() == 12
    assert not polygon_mask([(20, 20), (30, 20), (30, 30)], (7, 11)).any()


def test_box_edges_inside_a_pixel_cover_it_in_part():
    from attnlib.finders.shapes import box_mask

    mask = box_mask((0.25, 0, 2, 1), (3, 5))
    assert mask[0].tolist() == pytest.approx([0.75, 1, 0, 0, 0])


def test_run_lengths_go_down_the_columns_starting_with_zeros():
    from attnlib.finders.shapes import run_length_mask

    mask = run_length_mask([1, 2, 3], (2, 3))
    assert mask.astype(int).tolist() == [[0, 1, 0], [1, 0, 0]]


def compressed(runs):
    """Write runs as COCO's string: an encoder made from the format's description, as an oracle."""
    signs = []
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        while True:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            signs.append(chr((bits | 0x20 if more else bits) + 48))
            if not more:
                break
    return "".join(signs)


def test_compressed_run_lengths_give_the_same_mask():
    from attnlib.finders.shapes import run_length_mask

    rng = np.random.default_rng(7)
    mask = rng.random((31, 37)) > 0.7
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    assert np.array_equal(run_length_mask(runs, mask.shape), mask)
    assert np.array_equal(run_length_mask(compressed(runs), mask.shape), mask)
    assert np.array_equal(run_length_mask(compressed([5, 900, 242]), mask.shape).sum(), 900)


def test_run_lengths_of_another_size_are_refused():
    from attnlib.errors import InputError
    from attnlib.finders.shapes import run_length_mask

    with pytest.raises(InputError, match="add up to 6"):
        run_length_mask([1, 2, 3], (3, 3))
