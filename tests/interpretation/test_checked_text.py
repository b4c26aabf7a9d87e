"""The text with its checks, on real models."""

import pytest
import torch


@pytest.fixture(scope="module")
def poster_text(poster, saliency):
    from attnlib import capture, explain, interpret

    (picture, regions), loaded = poster, saliency
    record = capture(loaded, loaded.prepare([picture], size=140))
    relevance = explain(record, "rollout", start_layer=6)
    text = interpret(
        relevance,
        regions,
        picture=picture,
        model=loaded,
        said=loaded.said(record.output, views=record.views),
        checks="all",
        against={"the last layer": explain(record, "raw")},
        progress=False,
    )
    return text, relevance, regions, picture, loaded


def test_all_checks_of_the_real_model_stand_in_the_text(poster_text):
    text, relevance, regions, *_ = poster_text
    assert set(text.checks) == {"artifacts", "stability", "position", "causal"} - (
        set() if any(c.band in ("moderate", "highest") for c in text.claims) else {"position"}
    )
    assert text.checks["causal"].forwards <= 70
    face = [c for c in text.claims if c.kind in ("face", "face part")]
    assert face
    shares = regions.shares(relevance)
    for claim in face:
        assert claim.share == pytest.approx(shares[claim.region]["share"].item(), abs=1e-6)
        assert claim.stability is not None
        assert claim.text.startswith("Uncertain: ") is not claim.stability.stable
        assert {"rank", "use"} <= set(claim.evidence)
        assert "random masks" in claim.text
    assert "Artifact patches" in text.to_text()
    assert text.section("comparison") is not None
    assert "People are predicted to look" in text.to_text()
    assert len(text.claims) <= 12
    text.to_json()


def test_what_is_an_outlier_of_the_norm_is_one_rule_in_the_text_and_in_the_trust_panel(poster_text):
    from attnlib.evaluate import artifact_patches, token_norms

    text, relevance, _, picture, loaded = poster_text
    norms = token_norms(loaded.model, loaded.prepare([picture], size=140).inputs, relevance.layout)
    assert text.checks["artifacts"].by_norm == int(artifact_patches(norms).sum())


def test_artifacts_can_be_set_aside(poster_text):
    from dataclasses import replace

    from attnlib import interpret

    _, relevance, regions, picture, loaded = poster_text
    text = interpret(
        relevance, regions, picture=picture, model=loaded, set_aside_artifacts=True, progress=False
    )
    found = text.checks["artifacts"]
    seen = torch.ones(1, relevance.layout.num_tokens, dtype=torch.bool)
    seen[0, relevance.layout.patch_slice] = ~found.patches.flatten()
    by_hand = interpret(replace(relevance, seen=seen), regions)
    assert [c.share for c in text.claims] == pytest.approx([c.share for c in by_hand.claims])


def test_a_model_that_raises_leaves_notes_and_the_text_stands(poster_text):
    from dataclasses import replace

    from attnlib import interpret

    _, relevance, regions, picture, loaded = poster_text

    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, **inputs):
            raise RuntimeError("no\nmemory")

    broken = replace(loaded, model=Broken())
    text = interpret(
        relevance, regions, picture=picture, model=broken, checks=("stability", "causal"), progress=False
    )
    assert any("'causal': RuntimeError: no memory" in note for note in text.notes)
    assert text.claims
    assert all(claim.stability is None for claim in text.claims)


def test_a_map_that_does_not_come_out_again_is_compared_with_no_view(poster_text):
    from dataclasses import replace

    from attnlib import interpret

    _, relevance, regions, picture, loaded = poster_text
    other = replace(relevance, scores=relevance.scores.flip(-1))
    text = interpret(other, regions, picture=picture, model=loaded, checks="stability", progress=False)
    assert any("gives another map" in note for note in text.notes)
    assert all(claim.stability is None for claim in text.claims)


def test_a_map_made_by_hand_cannot_be_checked_and_says_so(poster_text):
    from dataclasses import replace

    from attnlib import interpret

    _, relevance, regions, picture, loaded = poster_text
    text = interpret(replace(relevance, method="mine"), regions, picture=picture, model=loaded, checks="all")
    assert any("cannot be run again" in note for note in text.notes)
    assert text.claims


def test_a_gradient_map_is_checked_with_the_label_that_it_was_made_for():
    from attnlib import capture, explain, interpret, load_model
    from attnlib.evaluate import make_scene

    loaded, scene = load_model("scenes-vit"), make_scene(5, 1, classes=["star", "portrait"], decoys=1)
    relevance = explain(capture(loaded, [scene.picture], target="star"), "generic_relevance")
    given = {"picture": scene.picture, "model": loaded, "progress": False}
    told = interpret(relevance, scene.regions(), target="star", checks=("stability", "causal"), **given)
    claim = told.claim("star")
    assert claim.stability.stable
    assert claim.evidence["use"].words == "attended and used"
    assert "0 results" not in " ".join(told.notes)
    untold = interpret(relevance, scene.regions(), checks="stability", **given)
    assert "pass target=" in " ".join(untold.notes)


def test_the_map_of_a_head_that_reads_class_and_patches_is_checked_too():
    from attnlib import capture, explain, interpret, load_model
    from attnlib.evaluate import make_scene

    loaded, scene = load_model("scenes-registers"), make_scene(5, 1, classes=["star", "portrait"], decoys=1)
    relevance = explain(capture(loaded, [scene.picture]), "rollout")
    assert relevance.query == "mean of 145 tokens"
    given = {"picture": scene.picture, "model": loaded, "progress": False}
    told = interpret(relevance, scene.regions(), checks=("stability", "position"), **given)
    assert not [note for note in told.notes if note.startswith("0 ")]
    checked = [claim for claim in told.claims if claim.kind != "position"]
    assert checked
    assert all(claim.stability is not None for claim in checked)
