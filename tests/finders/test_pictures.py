"""Hard pictures through the real finders: turned words, two faces, pages of text, drawings, other scripts."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def posters(root):
    path = root / "data/images/posters/make_posters.py"
    spec = importlib.util.spec_from_file_location("make_posters", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_posters"] = module
    spec.loader.exec_module(module)
    return module


def overlap(first, second):
    return (first & second).sum() / (first | second).sum()


def test_the_same_seed_makes_the_same_poster_as_the_committed_one(posters, root):
    made = posters.poster("development", 0)
    stored = np.asarray(Image.open(root / f"data/images/posters/{made.name}.jpg").convert("RGB"), dtype=int)
    assert np.abs(stored - np.asarray(made.image, dtype=int)).mean() < 3.0  # a JPEG of quality 90


def test_turned_words_are_read_and_their_region_follows_the_turn(posters):
    from attnlib import find_regions

    made = posters.poster("development", 5)
    regions = find_regions(np.asarray(made.image))
    title = next(r for r in regions if r.details.get("words") == made.words["title"])
    assert overlap(title.mask > 0, posters.truth_masks(made)["title"]) > 0.5
    left, top, right, bottom = title.box
    assert title.mask[top:bottom, left:right].mean() < 0.9


def test_two_faces_are_two_regions_counted_from_the_left(posters):
    from attnlib import find_regions

    made = posters.poster("development", 4)
    faces = [r for r in find_regions(np.asarray(made.image), text=False) if r.kind == "face"]
    assert [face.name for face in faces] == [
        "the face 1 of 2, from the left",
        "the face 2 of 2, from the left",
    ]
    assert faces[0].box[2] < faces[1].box[0]


def test_a_hidden_face_is_not_invented(posters):
    from attnlib import find_regions

    made = posters.poster("development", 3)
    assert not [r for r in find_regions(np.asarray(made.image), text=False) if r.kind == "face"]


def test_a_page_of_text_and_a_texture_hold_no_face():
    from skimage import data

    from attnlib import find_regions

    page = find_regions(np.stack([data.page()] * 3, axis=-1))
    assert [r for r in page if r.kind == "text"]
    assert not [r for r in page if r.kind == "face"]
    brick = find_regions(np.stack([data.brick()] * 3, axis=-1))
    assert brick.names == ("the background",)


def test_other_scripts_and_drawings_raise_nothing():
    from attnlib import find_regions

    canvas = Image.new("RGB", (400, 300), "white")
    pen = ImageDraw.Draw(canvas)
    pen.ellipse((150, 90, 250, 210), outline="black", width=4)
    pen.ellipse((175, 120, 190, 135), fill="black")
    pen.ellipse((210, 120, 225, 135), fill="black")
    pen.arc((175, 150, 225, 190), 20, 160, fill="black", width=4)
    fonts = list(Path("/usr/share/fonts").rglob("DejaVuSans.ttf"))
    if fonts:
        pen.text((20, 20), "Ελευθερία ή θάνατος", "black", ImageFont.truetype(str(fonts[0]), 30))
        pen.text((20, 240), "Мастер и Маргарита", "black", ImageFont.truetype(str(fonts[0]), 30))
    regions = find_regions(np.asarray(canvas))
    assert not any("failed" in note for note in regions.notes)
    assert any("none was found" in note for note in regions.notes if note.startswith("Faces"))
