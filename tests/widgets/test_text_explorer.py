"""The explorer over texts: the same state object, real models, what it writes and what it saves."""

import io
import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

TEXTS = ["The bank raised its rates by the river bank.", "Fruit flies like a banana."]


@pytest.fixture(scope="module")
def bench():
    from attnlib import explore

    opened = explore("minilm-l6", TEXTS, layer=2, head="mean")
    assert opened.wait(120)
    return opened


def rest(bench, words):
    """Wait until the text is written anew."""
    for _ in range(100):
        if words in bench.text.value:
            return
        time.sleep(0.1)
    raise AssertionError(bench.text.value)


def test_it_opens_with_map_words_tokens_and_chart(bench):
    assert bench.problem.value == ""
    assert bench.state.kind == "text"
    assert bench.viewer.state["a"]["map"] == 1
    assert "rollout" in bench.text.value
    assert "river" in bench.table.value
    assert "similarity" in bench.said.value
    assert len(bench.chart.bars) == 6 + 12
    assert bench.parameters()["sentence"] == TEXTS[0]


def test_the_measures_are_those_of_the_weights(bench):
    found = bench.bench.findings
    weights = found.record.layers[3].weights()[0, 5].double()
    entropy = -(weights * weights.log()).sum(-1).mean() / np.log(weights.shape[-1])
    places = torch.arange(weights.shape[-1])
    apart = (weights * (places[:, None] - places).abs()).sum(-1).mean()
    assert found.measures["entropy"][3, 5] == pytest.approx(float(entropy), rel=1e-5)
    assert found.measures["token_distance"][3, 5] == pytest.approx(float(apart), rel=1e-5)
    assert found.measures["token_before"][3, 5] == pytest.approx(float(weights.diagonal(-1).mean()), rel=1e-5)


def test_state_menu_and_viewer_move_together(bench):
    from attnlib.bands import percent

    bench.state.goto(1, 3)
    bench.state.choose_query(2)
    assert bench.viewer.state["a"]["query"] == 2
    assert bench.menu.query.value == "2"
    rest(bench, "&quot;bank&quot; (2)")
    row = bench.bench.findings.record.layers[1].weights()[0, 3, 2]
    token = bench.bench.tokens()[int(row.argmax())]
    assert f"Strongest: &quot;{token}&quot; {percent(row.max())} (" in bench.text.value
    bench.viewer.choose(query=4, map=0)
    assert bench.state.query == 4
    bench.menu.query.value = "x"
    assert "whole number" in bench.problem.value
    bench.menu.query.value = ""
    assert bench.state.query is None


def test_another_text_is_captured_without_padding(bench):
    bench.menu.item.value = 1
    assert bench.wait(60)
    assert bench.bench.tokens() == ["[CLS]", "fruit", "flies", "like", "a", "banana", ".", "[SEP]"]
    assert bench.viewer.document["sources"][0]["query_tokens"] == bench.bench.tokens()
    assert bench.parameters()["sentence"] == TEXTS[1]
    bench.menu.item.value = 0
    assert bench.wait(60)


def test_what_is_saved_is_what_is_shown(bench, tmp_path):
    bench.viewer.choose(map=1)
    saved = json.loads(bench.save_json(tmp_path / "view.json").read_text())
    assert saved["tokens"] == bench.bench.tokens()
    assert sum(saved["share"]) == pytest.approx(1, rel=1e-5)
    picture = Image.open(io.BytesIO(bench.save_png(tmp_path / "view.png").read_bytes()))
    assert picture.width > 200
    page = bench.save_html(tmp_path / "view.html").read_text()
    assert "What the map says" in page
    assert "attnlib-viewer" in page


def test_a_gradient_method_explains_one_answer_of_a_text():
    from attnlib import explore

    opened = explore("agreement-bert", "the dogs near the cat", method="generic_relevance", target="plural")
    assert opened.wait(60)
    assert opened.problem.value == ""
    assert "generic_relevance" in opened.text.value


@pytest.mark.parametrize(
    ("model", "source", "words"),
    [
        ("minilm-l6", "sample:poster", "looks like a picture"),
        ("minilm-l6", 3, "takes texts"),
        ("scenes-vit", ["one text", "another"], "takes pictures"),
    ],
)
def test_what_a_model_cannot_read_is_refused_in_words(model, source, words):
    from attnlib import explore
    from attnlib.errors import InputError

    with pytest.raises(InputError, match=words):
        explore(model, source)


def test_a_record_of_text_opens_too(sentence):
    from attnlib import explore

    opened = explore(sentence["record"], method="attention", head=1)
    assert opened.wait(60)
    assert opened.problem.value == ""
    assert opened.bench.tokens() == sentence["tokens"]


@pytest.mark.browser
def test_the_saved_page_shows_the_map_and_the_attention(bench, tmp_path, new_page):
    bench.viewer.choose(map=1)
    path = bench.save_html(tmp_path / "page.html")
    page = new_page()
    page.goto(f"file://{path}")
    page.wait_for_selector(".attnlib-viewer[data-tick]")
    assert page.locator(".av-caption").inner_text().startswith("rollout, query:")
    token = int(bench.bench.findings.relevance.scores[0].argmax())
    page.locator(".av-token").nth(token).hover()
    assert "times the even share" in page.locator(".av-value").inner_text()
    page.locator(".av-token").nth(3).click()
    assert "layer" in page.locator(".av-caption").inner_text()
    assert page.errors == []
    assert page.outside == []
