import hashlib

import numpy as np
import pytest


@pytest.fixture(scope="module")
def scenes():
    from attnlib.evaluate import scenes

    return scenes


def digest(scene) -> str:
    masks = b"".join(np.packbits(thing.mask).tobytes() for thing in scene.things)
    return hashlib.sha256(scene.pixels.tobytes() + masks + scene.caption.encode()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(scenes):
    first = [digest(scene) for scene in scenes.make_scenes(7, seed=5)]
    assert first == [digest(scene) for scene in scenes.make_scenes(7, seed=5)]
    assert len(set(first)) == 7
    assert not set(first) & {digest(scene) for scene in scenes.make_scenes(7, seed=6)}


def test_scenes_can_be_made_one_by_one_or_from_any_number_on(scenes):
    together = list(scenes.make_scenes(5, seed=3))
    later = list(scenes.make_scenes(2, seed=3, start=3))
    assert [digest(s) for s in together[3:]] == [digest(s) for s in later]


@pytest.mark.parametrize("size", [96, 131, 224])
def test_masks_are_exact_do_not_overlap_and_have_the_size_of_the_picture(scenes, size):
    for scene in scenes.make_scenes(11, seed=2, size=size, watermark=True):
        assert scene.pixels.shape == (size, size, 3)
        count = np.sum([thing.mask for thing in scene.things], axis=0)
        assert count.max() == 1
        for thing in scene.things:
            assert thing.mask.shape == (size, size)
            assert thing.mask.any()
            for part in thing.parts.values():
                assert part.any()
                assert not (part & ~thing.mask).any()


def test_a_mask_holds_exactly_the_pixels_that_change_when_the_thing_is_left_out(scenes):
    with_word = scenes.make_scene(4, classes=["ring"], words=["SUN"], decoys=0)
    without = scenes.make_scene(4, classes=["ring"], words=[], decoys=0)
    changed = (with_word.pixels != without.pixels).any(axis=2)
    assert changed.any()
    assert not (changed & ~with_word.mask("SUN")).any()


def test_labels_and_caption_say_what_is_shown_from_left_to_right(scenes):
    scene = scenes.make_scene(1, classes=["star", "portrait"], words=["TEA"], decoys=1, watermark=True)
    assert scene.labels == ("star", "portrait")
    at = {t.name: np.nonzero(t.mask)[1].mean() for t in scene.things if t.kind in ("object", "word")}
    order = sorted(at, key=at.get)
    told = [scene.caption.find(name.lower()) for name in order]
    assert told == sorted(told)
    assert -1 not in told
    assert "decoy" not in scene.caption
    assert "watermark" not in scene.caption


def test_faces_and_portraits_have_parts_that_become_regions(scenes):
    scene = scenes.make_scene(1, size=200, classes=["face", "portrait"], words=["OWL"])
    regions = scene.regions()
    assert "left eye of the face" in regions.names
    assert "mouth of the portrait" in regions.names
    assert regions["OWL"].kind == "text"
    assert regions.size == (200, 200)


def test_left_and_right_eye_of_a_mirrored_portrait_stay_on_their_sides(scenes):
    from attnlib.evaluate.drawing import portrait

    for mirrored in (False, True):
        _, _, parts = portrait(60, mirrored=mirrored)
        assert np.nonzero(parts["left eye"])[1].mean() < np.nonzero(parts["right eye"])[1].mean()


def test_the_watermark_stands_in_a_corner_and_changes_nothing_else_but_places(scenes):
    for scene in scenes.make_scenes(9, seed=8, watermark=True):
        rows, columns = np.nonzero(scene.mask("watermark"))
        assert rows.max() < 20 or rows.min() > 76
        assert columns.max() < 40 or columns.min() > 56
        red, green, _ = scene.pixels[rows, columns].mean(axis=0)
        assert red > green + 30


def test_a_grid_scene_shows_four_classes_in_four_quarters(scenes):
    scene = scenes.grid_scene(7, 1)
    masks = np.stack([thing.mask for thing in scene.things])
    assert len(scene.labels) == 4
    assert (masks.sum(axis=0) == 1).all()
    assert masks.mean(axis=(1, 2)).tolist() == [0.25] * 4


def test_many_things_still_fit_and_impossible_wishes_are_refused(scenes):
    from attnlib.errors import InputError

    alone = scenes.make_scene(3, classes="ring", words="SUN", decoys=0)
    assert [thing.name for thing in alone.things] == ["ring", "SUN"]
    full = scenes.make_scene(3, classes=scenes.CLASSES, words=["TEA"], decoys=1)
    assert len(full.labels) == len(scenes.CLASSES)
    with pytest.raises(InputError, match="do not fit"):
        scenes.make_scene(3, classes=scenes.CLASSES * 3, words=scenes.WORDS * 3)
    with pytest.raises(InputError, match="96 to 224"):
        scenes.make_scene(1, size=64)
    with pytest.raises(InputError, match="unknown classes"):
        scenes.make_scene(1, classes=["cat"])
    with pytest.raises(InputError, match="letters A to Z"):
        scenes.make_scene(1, words=["R2D2"])
    with pytest.raises(InputError, match="0 or more"):
        scenes.make_scene(1, decoys=-1)
    for count in (0, -1):
        with pytest.raises(InputError, match="one scene or more"):
            scenes.make_scenes(count)
    with pytest.raises(InputError, match="shows no 'star'"):
        scenes.make_scene(1, classes=["ring"]).mask("star")
    with pytest.raises(InputError, match="four different"):
        scenes.grid_scene(1, classes=["star", "star", "ring", "disc"])


def test_the_number_of_an_agreement_sentence_is_that_of_its_subject():
    from attnlib.evaluate.sentences import MISSING, NOUNS, agreement_sentences

    numbers = {form: bool(i) for pair in NOUNS for i, form in enumerate(pair)}
    sentences = agreement_sentences(200, seed=3)
    assert sentences == agreement_sentences(200, seed=3)
    for sentence in sentences:
        words = sentence.text.split()
        assert words.count(MISSING) == 1
        assert numbers[words[sentence.subject]] == sentence.plural
        if sentence.attractor is not None:
            assert numbers[words[sentence.attractor]] == sentence.attractor_plural
    misled = [s.attractor_plural != s.plural for s in sentences if s.attractor is not None]
    assert 0.35 < np.mean(misled) < 0.65
