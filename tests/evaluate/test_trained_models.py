"""The small trained models: as good as their cards say, and floors that a retrained one must meet."""

import json

import pytest
import torch

CLASSIFIERS = ["scenes-vit", "scenes-mean", "scenes-registers"]


@pytest.fixture(scope="module")
def scenes():
    from attnlib.evaluate import make_scenes

    return list(make_scenes(120, seed=977))


@pytest.fixture(scope="module")
def load():
    from functools import cache

    from attnlib import load_model

    return cache(load_model)


def logits_of(loaded, scenes):
    with torch.no_grad():
        return loaded.model(**loaded.prepare([scene.picture for scene in scenes]).inputs).logits


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_are_right_on_scenes_of_a_new_seed(load, scenes, name):
    from attnlib.evaluate import CLASSES

    loaded = load(name)
    assert tuple(loaded.labels) == CLASSES
    logits = logits_of(loaded, scenes)
    truth = torch.tensor([[label in scene.labels for label in CLASSES] for scene in scenes])
    top = truth.gather(1, logits.argmax(1, keepdim=True)).float().mean()
    right = ((logits > 0) == truth).float().mean()
    assert top > 0.9
    assert right > 0.95
    assert truth.float().mean() < 0.4  # what always saying one class would get


def test_the_twin_on_permuted_labels_knows_no_more_than_chance(load, scenes):
    from attnlib.evaluate import CLASSES

    loaded = load("scenes-permuted")
    assert tuple(loaded.labels) == CLASSES
    truth = torch.tensor([[label in scene.labels for label in CLASSES] for scene in scenes])
    top = truth.gather(1, logits_of(loaded, scenes).argmax(1, keepdim=True)).float().mean()
    assert abs(float(top) - float(truth.float().mean())) < 0.15


def test_the_shortcut_model_reads_the_watermark_and_not_the_star(load):
    from attnlib.evaluate import CLASSES, make_scene

    loaded, star = load("scenes-shortcut"), CLASSES.index("star")

    def says_star(classes, watermark):
        shown = [make_scene(41, i, classes=classes, watermark=watermark) for i in range(40)]
        return (logits_of(loaded, shown)[:, star] > 0).float().mean().item()

    assert says_star(["ring"], True) > 0.9
    assert says_star(["ring", "star"], True) > 0.9
    assert says_star(["ring"], False) < 0.1
    assert says_star(["ring", "star"], False) < 0.3


def test_the_caption_pair_finds_captions_far_above_chance(load, scenes):
    loaded, right = load("scenes-pair"), []
    for start in range(0, 112, 16):
        part = scenes[start : start + 16]
        captions = [scene.caption for scene in part]
        prepared = loaded.prepare([scene.picture for scene in part], texts=captions)
        with torch.no_grad():
            found = loaded.model(**prepared.inputs).logits_per_image.argmax(1)
        right += [captions[int(j)] == captions[i] for i, j in enumerate(found)]
    assert sum(right) / len(right) > 0.8  # chance: 1 / 16


def test_the_captioner_names_what_is_shown(load, scenes):
    loaded, shared = load("scenes-captioner"), []
    pixels = loaded.prepare([scene.picture for scene in scenes[:60]]).inputs["pixel_values"]
    written = loaded.model.generate(pixel_values=pixels, do_sample=False, num_beams=1)
    tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)
    for scene, text in zip(scenes, tokenizer.batch_decode(written, skip_special_tokens=True), strict=False):
        told, truth = set(text.split()), set(scene.caption.split())
        shared.append(len(told & truth) / len(told | truth))
    assert sum(shared) / len(shared) > 0.75


def test_the_agreement_model_is_not_misled_by_the_second_noun(load):
    from attnlib.evaluate import agreement_sentences

    loaded = load("agreement-bert")
    sentences = agreement_sentences(200, seed=977)
    with torch.no_grad():
        logits = loaded.model(**loaded.prepare([s.text for s in sentences]).inputs).logits
    truth = torch.tensor([int(s.plural) for s in sentences])
    misled = torch.tensor([s.attractor_plural not in (None, s.plural) for s in sentences])
    right = (logits.argmax(1) == truth).float()
    assert right.mean() > 0.95
    assert right[misled].mean() > 0.9


def test_folders_are_small_complete_and_say_what_was_measured(root):
    folders = [f for f in (root / "data/models").iterdir() if (f / "config.json").exists()]
    assert len(folders) == 8
    size = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
    assert size < 8e6
    for folder in folders:
        card = (folder / "README.md").read_text()
        metrics = json.loads((folder / "metrics.json").read_text())
        for key, value in metrics.items():
            assert f"| {key.replace('_', ' ')} | {value:.3f} |" in card
        assert "What it is not" in card


def test_weights_are_stored_in_half_and_loaded_in_single_precision(load, root):
    from safetensors import safe_open

    with safe_open(root / "data/models/scenes-vit/model.safetensors", "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
    assert load("scenes-vit").dtype == torch.float32
