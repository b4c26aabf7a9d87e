"""Overlaps follow the stated rule; what lies in a larger part stays a part of it."""

import numpy as np


def box(left, top, right, bottom, size=(101, 103)):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_shared_pixel_goes_to_the_smaller_part():
    from attnlib import Region
    from attnlib.finders.overlap import arrange

    small, large = Region("small", box(10, 10, 40, 40)), Region("large", box(25, 10, 90, 60))
    done, notes = arrange([large, small])
    assert [one.name for one in done] == ["small", "large"]
    assert np.array_equal(done[0].mask, small.mask)
    assert np.array_equal(done[1].mask, large.mask & ~small.mask)
    assert "gave up pixels" in notes[0]


def test_what_a_person_gave_loses_nothing_to_what_was_found():
    from attnlib import Region
    from attnlib.finders.overlap import arrange

    given = Region("given", box(25, 10, 90, 60), "box", "given")
    found = Region("found", box(10, 10, 40, 40), "text", "rapidocr")
    done = {one.name: one for one in arrange([found, given])[0]}
    assert np.array_equal(done["given"].mask, given.mask)
    assert np.array_equal(done["found"].mask, found.mask & ~given.mask)


def test_what_lies_within_keeps_its_pixels_and_is_called_a_part():
    from attnlib import Region
    from attnlib.finders.overlap import arrange

    person, word = (
        Region("person", box(5, 5, 95, 95)),
        Region("word", box(20, 70, 60, 80), "text", "rapidocr"),
    )
    done = {one.name: one for one in arrange([person, word])[0]}
    assert np.array_equal(done["person"].mask, person.mask)
    assert np.array_equal(done["word"].mask, word.mask)
    assert done["word"].part_of == "person"
    assert done["person"].part_of is None


def test_a_face_mostly_under_a_line_of_text_is_left_out_with_its_parts():
    from attnlib import Region
    from attnlib.finders.overlap import without_text_faces

    text = Region('the words "OOPS"', box(0, 40, 100, 60), "text", "rapidocr")
    false = Region("the face", box(30, 42, 50, 62), "face", "scikit-image")
    part = Region("the mouth and chin", box(30, 55, 50, 62), "face part", details={"part_of": "the face"})
    real = Region("other face", box(60, 0, 90, 30), "face", "scikit-image")
    kept, notes = without_text_faces([text, false, part, real])
    assert [one.name for one in kept] == ['the words "OOPS"', "other face"]
    assert "more than half" in notes[0]


def test_soft_masks_share_a_pixel_without_counting_it_twice():
    from attnlib import Region
    from attnlib.finders.overlap import arrange

    first, second = np.zeros((11, 13), np.float32), np.zeros((11, 13), np.float32)
    first[2:5], second[4:9] = 0.75, 0.75
    done, _ = arrange([Region("a", first), Region("b", second)])
    total = sum(one.mask.astype(float) for one in done)
    assert total.max() <= 1
