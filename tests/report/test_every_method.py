"""A report, and the checks beside it, work with every method, and explain what they were asked for."""

import pytest


@pytest.fixture(scope="module")
def scene():
    from attnlib import load_model
    from attnlib.evaluate import make_scene

    return load_model("scenes-vit"), make_scene(3, 1, classes=["star", "face"], words=["SUN"])


def asked():
    from attnlib.methods import METHODS

    return [name for name, card in METHODS.items() if card.explains_target]


@pytest.mark.parametrize("name", asked())
def test_a_method_is_told_the_target_and_made_again_with_it(scene, name):
    pytest.importorskip("captum")
    pytest.importorskip("pytorch_grad_cam")
    from attnlib import capture, explain
    from attnlib.interpretation.remake import MapMaker
    from attnlib.report.mapping import map_picture

    loaded, truth = scene
    mapped = map_picture(truth.picture, model=loaded, method=name, target="face", start_layer=_start(name))
    record = capture(loaded, [truth.picture], target="face", internals=True)
    own = explain(record, name)
    assert float((mapped.relevance.scores - own.scores).abs().max()) <= 1e-4 * float(own.scores.abs().max())
    made = MapMaker.for_relevance(mapped.relevance, loaded, truth.picture, "face")
    again = made(truth.picture).scores
    assert float((again - own.scores).abs().max()) <= 1e-4 * float(own.scores.abs().max())


def _start(name):
    from attnlib.methods import METHODS

    return 0 if "start_layer" in METHODS[name].defaults else None


def test_decompx_says_what_it_explained_and_is_checked_for_that(scene):
    from attnlib.evaluate import trust
    from attnlib.report.mapping import map_picture

    loaded, truth = scene
    mapped = map_picture(truth.picture, model=loaded, method="decompx", target="ring")
    assert mapped.relevance.options["label"] == "ring"
    found = trust(mapped.relevance, loaded, mapped.prepared, checks=["stability"])
    assert "stability" not in found.left_out
