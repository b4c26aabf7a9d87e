"""What is saved, written and named is always what is shown: after failures, cancels, quick hands and other sources."""

import threading
import time

import numpy as np
import pytest
import torch
import yaml


@pytest.fixture
def opened(scene, monkeypatch):
    from attnlib import Regions, explore

    monkeypatch.setattr("attnlib.finders.find_regions", lambda picture: Regions((), picture.size))
    opened = explore("scenes-vit", scene["picture"], regions=None, layer=1)
    assert opened.wait(60)
    return opened


def press(opened):
    opened.menu.run.click()
    assert opened.wait(60)


def test_after_a_failure_everything_names_what_is_still_shown(opened, scene, tmp_path):
    before = opened.parameters()
    scores = opened.bench.findings.relevance.scores
    opened.menu.picture.value = "sample:poster"
    opened.menu.method.value = "grad_cam"  # needs a target
    press(opened)
    assert "choose a target" in opened.problem.value
    assert opened.parameters() == before
    assert opened.bench.picture.sha256 == scene["picture"].sha256
    assert opened.relevance().scores is scores
    opened.save_html(tmp_path / "view.html")
    assert (opened.menu.picture.value, opened.menu.method.value) == ("sample:poster", "grad_cam")
    opened.menu.target.value = "0"
    press(opened)
    assert opened.problem.value == ""
    assert opened.parameters()["method"] == "grad_cam"
    assert opened.bench.picture.size != scene["picture"].size


def test_a_model_that_cannot_be_loaded_leaves_the_one_that_is_shown(opened):
    opened.menu.model.value = "no/such-model"
    press(opened)
    assert "no/such-model" in opened.problem.value
    assert opened.state.model == opened.parameters()["model"] == "scenes-vit"
    assert opened.menu.model.value == "no/such-model"  # to be mended by hand


def test_a_cancelled_change_is_no_change_and_meanwhile_nothing_is_saved(opened, monkeypatch, tmp_path):
    from attnlib.errors import InputError

    begun, go_on = threading.Event(), threading.Event()
    real = type(opened.bench).load

    def slow(bench):
        begun.set()
        go_on.wait(20)
        real(bench)

    monkeypatch.setattr(type(opened.bench), "load", slow)
    shown = opened.parameters()
    opened.menu.picture.value = "sample:poster"
    opened.menu.run.click()
    assert begun.wait(20)
    with pytest.raises(InputError, match="press Cancel"):
        opened.save_html(tmp_path / "view.html")
    opened.menu.cancel.click()
    go_on.set()
    assert opened.wait(60)
    assert "cancelled" in opened.step.value
    assert opened.parameters() == shown


def test_the_last_of_quick_choices_is_what_is_shown(opened, scene):
    for picture, method in (
        ("sample:poster", "raw"),
        ("sample:poster", "rollout"),
        ("sample:poster", "legrad"),
    ):
        opened.menu.picture.value, opened.menu.method.value = picture, method
        opened.menu.target.value = "1"
        opened.menu.run.click()
        time.sleep(0.02)
    assert opened.wait(60)
    assert opened.problem.value == ""
    assert opened.parameters()["method"] == opened.relevance().method == "legrad"
    assert opened.viewer.document["sources"][0]["maps"][0]["name"] == "legrad"
    assert "poster" in opened.viewer.document["title"]


def test_a_pasted_picture_can_be_shown_again_by_its_name(opened, scene):
    import io

    buffer = io.BytesIO()
    scene["picture"].to_pil().save(buffer, "PNG")
    opened._pasted(buffer.getvalue())
    assert opened.wait(60)
    opened.menu.picture.value = "sample:poster"
    press(opened)
    opened.menu.picture.value = "pasted picture"
    press(opened)
    assert opened.problem.value == ""
    np.testing.assert_array_equal(opened.bench.picture.pixels, scene["picture"].pixels)


def test_parameters_open_the_layer_that_is_looked_at_not_the_method(opened, scene, tmp_path):
    from attnlib import explore

    assert "shown" not in opened.parameters()
    opened.viewer.choose(layer=2, heads="one", head=1, map=0)  # as the hand does
    given = yaml.safe_load(opened.save_parameters(tmp_path / "view.yaml").read_text())
    assert (given["shown"], given["layer"], given["head"]) == ("attention", 2, "1")
    chosen = {name: given[name] for name in given if name not in ("model", "picture")}
    again = explore("scenes-vit", scene["picture"], regions=None, **chosen)
    assert again.viewer.state["a"]["map"] == 0
    torch.testing.assert_close(again.relevance().scores, opened.relevance().scores)
    again.state.shown = "method"
    assert again.viewer.state["a"]["map"] == 1
    assert again.relevance().method == "rollout"
    again.wait(60)


@pytest.mark.browser
def test_a_saved_page_has_the_look_and_both_sides_of_the_view(opened, tmp_path, new_page):
    from PIL import Image

    state = opened.viewer.state
    plain = Image.open(opened.save_png(tmp_path / "plain.png")).tobytes()
    side = {**state["a"], "map": 0, "layer": 3, "layers": "one"}
    opened.viewer.state = {**state, "two": True, "b": side, "cuts": [0.2, 0.4, 0.6], "red": 0.8, "alpha": 0.9}
    assert Image.open(opened.save_png(tmp_path / "moved.png")).tobytes() != plain
    page = new_page()
    page.goto(opened.save_html(tmp_path / "view.html").as_uri())
    page.wait_for_selector(".attnlib-viewer[data-tick]")
    captions = page.locator(".av-caption").all_inner_texts()
    assert captions[0].startswith("A: rollout")
    assert captions[1].startswith("B: layer 3")
    assert "low (blue): 0.2-0.4x" in page.locator(".av-legend").inner_text()
    said = opened.beyond_parameters()
    assert any("Side B" in one for one in said)
    assert any("cuts" in one for one in said)
    assert page.errors == []


def test_words_are_only_of_the_kind_of_attention_that_is_looked_at(tiny):
    from attnlib import capture, explore
    from attnlib.errors import InputError

    sizes = {"vocab_size": 60, "d_model": 24, "encoder_layers": 2, "decoder_layers": 3,
             "encoder_attention_heads": 2, "decoder_attention_heads": 3, "encoder_ffn_dim": 31, "decoder_ffn_dim": 31,
             "max_position_embeddings": 64}  # fmt: skip
    import transformers

    torch.manual_seed(0)
    model = transformers.BartModel(transformers.BartConfig(**sizes)).eval()
    tokens = torch.arange(3, 16)[None]
    record = capture(model, {"input_ids": tokens[:, :11], "decoder_input_ids": tokens[:, :7]})
    opened = explore(record, method="attention", layer=0)
    assert opened.wait(60)
    names = [one["name"] for one in opened.viewer.document["sources"]]
    opened.viewer.choose(source=names.index("decoder cross"), layer=2, heads="one", head=2, query=5)
    assert (opened.state.layer, opened.state.query) == (0, None)  # positions in another source
    with pytest.raises(InputError, match="decoder cross"):
        opened.relevance()
    opened.write()
    assert "the viewer shows" in opened.text.value
    opened.state.goto(1)
    assert opened.viewer.state["a"]["source"] == 0
    assert opened.relevance().options["layers"] == [1]


@pytest.mark.parametrize(
    "wrong", [{"layer": 4}, {"layer": -5}, {"heads": "one", "head": 9}, {"map": 2}, {"source": 1}]
)
def test_what_a_live_viewer_does_not_have_is_refused_by_name(opened, wrong):
    from attnlib.errors import InputError

    before = opened.viewer.state
    with pytest.raises(InputError, match="does not exist"):
        opened.viewer.choose(**wrong)
    assert opened.viewer.state == before
    opened.viewer.choose(layer=-1)
    assert opened.viewer.state["a"]["layer"] == 3


def test_a_layer_that_does_not_exist_is_answered_in_place(opened):
    opened.state.layer = 99
    assert "layer 99 does not exist" in opened.problem.value
    assert opened.state.layer == opened.viewer.state["a"]["layer"] == 1


@pytest.mark.browser
def test_a_saved_notebook_without_a_kernel_shows_the_patch_that_was_asked_for(opened, new_page):
    opened.viewer.choose(query=[1, 2], layer=2, map=0)
    page = new_page()
    page.set_content(opened._repr_mimebundle_()[0]["text/html"])
    page.wait_for_selector(".attnlib-viewer[data-tick]")
    page.wait_for_function("() => !document.querySelector('.av-message:not([hidden])')")
    assert (
        page.locator(".av-caption")
        .first.inner_text()
        .startswith("layer 2, mean over heads, where patch (1, 2)")
    )
    assert page.errors == []
