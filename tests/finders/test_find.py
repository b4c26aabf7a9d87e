"""Text and faces on real pictures; a source that fails says so and the rest goes on."""

import sys

import numpy as np
import pytest


def test_the_poster_has_its_words_its_face_and_nothing_else(poster):
    _, regions = poster
    assert {region.kind for region in regions} == {"text", "face", "face part", "around", "background"}
    words = {region.details["words"] for region in regions if region.kind == "text"}
    assert words == {"EILEEN COLLINS", "A LIFE"}
    left, top, right, bottom = regions["the face"].box
    assert 200 < left < 240
    assert 180 < top < 215
    assert 300 < right < 330
    assert 285 < bottom < 315
    title, foot = regions['the words "EILEEN COLLINS"'].box, regions['the words "A LIFE"'].box
    assert title[3] < 110
    assert foot[1] > 660


def test_face_parts_are_the_stated_fractions_of_the_face(poster):
    from attnlib.finders import FACE_PARTS

    _, regions = poster
    face = regions["the face"]
    _, top, _, bottom = face.details["box"]
    total = np.zeros(regions.size)
    for name, (start, stop) in FACE_PARTS.items():
        part = regions[name]
        assert part.part_of == "the face"
        assert part.details["fractions"] == [start, stop]
        assert part.area / face.area == pytest.approx(stop - start, abs=0.01)
        assert part.box[1] == pytest.approx(top + start * (bottom - top), abs=1)
        total += part.mask
    assert np.allclose(total, face.mask, atol=1e-5)


def test_background_is_what_neither_words_nor_face_claim(poster):
    _, regions = poster
    rest = regions["the background"].mask
    claimed = sum(r.mask.astype(float) for r in regions if r.kind in ("text", "face", "around"))
    assert np.allclose(claimed + rest, 1, atol=1e-5)


@pytest.mark.parametrize("value", [0, 255])
def test_an_empty_picture_has_no_part_and_the_notes_say_so(value):
    from attnlib import find_regions

    regions = find_regions(np.full((157, 211, 3), value, np.uint8))
    assert regions.names == ("the background",)
    assert any(note.startswith("Text: none was found") for note in regions.notes)
    assert any(note.startswith("Faces: none was found") for note in regions.notes)


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 2), (7, 5)])
def test_tiny_and_thin_pictures_are_no_problem(shape):
    from attnlib import find_regions

    regions = find_regions(np.full((*shape, 3), 200, np.uint8))
    assert regions.names == ("the background",)
    assert not any("failed" in note for note in regions.notes)


def failing(pixels):
    raise ValueError(f"cannot read\n{pixels.shape}")


def test_a_reader_that_raises_becomes_a_note_and_the_face_is_still_found(poster):
    from attnlib import find_regions

    regions = find_regions(poster[0], text=failing)
    assert "the face" in regions.names
    assert any("the reader failed with ValueError: cannot read (" in note for note in regions.notes)


def test_a_detector_that_raises_becomes_a_note_and_given_boxes_remain():
    from attnlib import find_regions

    regions = find_regions(
        np.zeros((47, 61, 3), np.uint8), text=False, faces=failing, boxes={"a": (1, 2, 9, 8)}
    )
    assert "a" in regions.names
    assert any("the detector failed with ValueError" in note for note in regions.notes)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    from attnlib import find_regions
    from attnlib.finders import faces, text

    monkeypatch.setitem(sys.modules, "rapidocr", None)
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    monkeypatch.setitem(sys.modules, "skimage.transform", None)
    text._engine.cache_clear()
    faces._cascade.cache_clear()
    regions = find_regions(np.zeros((47, 661, 3), np.uint8))  # so wide that it would be made smaller first
    assert sum('pip install "attnlib[regions]"' in note for note in regions.notes) == 2
    assert regions.names == ("the background",)


def test_an_own_reader_and_detector_are_used_and_unsure_words_are_called_so():
    from attnlib import find_regions

    def reader(pixels):
        return [
            ([(5, 5), (90, 5), (90, 20), (5, 20)], "SURE", 0.99),
            ([(5, 50), (90, 50), (90, 70), (5, 70)], "UNSURE", 0.6),
            ([(5, 90), (90, 90), (90, 95), (5, 95)], "NOISE", 0.2),
            ([(95, 90), (100, 90), (100, 95), (95, 95)], "|", 0.99),
        ]

    regions = find_regions(
        np.zeros((101, 103, 3), np.uint8),
        text=reader,
        faces=lambda pixels: [(10, 22, 40, 48), (50, 22, 80, 48)],
    )
    assert 'the words "SURE"' in regions.names
    assert 'text that reads, unsurely, "UNSURE"' in regions.names
    assert not any("NOISE" in name for name in regions.names)
    assert any("2 of 4 places that look like text could not be read" in note for note in regions.notes)
    assert "the face 1 of 2, from the left" in regions.names
    assert "the mouth and chin of the face 2 of 2, from the left" in regions.names


def test_a_found_face_beside_a_given_one_has_a_name_of_its_own_and_keeps_its_parts():
    from attnlib import find_regions

    regions = find_regions(
        np.zeros((101, 103, 3), np.uint8),
        text=False,
        faces=lambda pixels: [(10, 22, 40, 48)],
        boxes={"the face": (60, 60, 90, 90)},
    )
    assert regions["the face"].box == (60, 60, 90, 90)
    assert regions["the face 2"].box == (10, 22, 40, 48)
    parts = [region for region in regions if region.kind == "face part"]
    assert {part.part_of for part in parts} == {"the face 2"}
    assert regions["the surroundings of the face"].details["around"] == "the face 2"


def test_words_that_stand_twice_are_told_apart_by_their_place():
    from attnlib import find_regions

    def reader(pixels):
        return [
            ([(5, 5), (30, 5), (30, 20), (5, 20)], "SALE", 0.99),
            ([(70, 80), (99, 80), (99, 99), (70, 99)], "SALE", 0.99),
        ]

    names = find_regions(np.zeros((101, 103, 3), np.uint8), text=reader, faces=False).names
    assert {'the words "SALE" (upper left)', 'the words "SALE" (lower right)'} <= set(names)


def test_a_page_full_of_text_keeps_its_largest_lines_and_joins_the_rest():
    from attnlib import find_regions

    def reader(pixels):
        return [
            ([(5, 4 * i), (90, 4 * i), (90, 4 * i + 3), (5, 4 * i + 3)], f"line {i}", 0.95) for i in range(90)
        ]

    regions = find_regions(np.zeros((400, 103, 3), np.uint8), text=reader, faces=False)
    assert "the 30 smallest lines of text" in regions.names
    assert len([r for r in regions if r.kind == "text"]) == 61
    assert any("30 of 90 lines of text" in note for note in regions.notes)
