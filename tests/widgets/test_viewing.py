"""The viewer as an object: what it shows, refuses and hands over, without a browser."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def packed(scene):
    from attnlib.widgets import viewer

    return viewer(scene["record"], scene["picture"], regions=scene["regions"])


def test_a_notebook_gets_html_a_poster_and_words(packed):
    bundle = packed._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/jpeg", "text/plain"}
    with Image.open(io.BytesIO(base64.b64decode(bundle["image/jpeg"]))) as poster:
        assert np.asarray(poster).std() > 10
    assert 'alt="Attention: layer 2, mean over heads"' in bundle["text/html"]


def test_the_repr_is_cheap_and_short(packed):
    assert len(repr(packed)) < 120
    assert "attention" in repr(packed)


def test_a_fragment_loads_nothing_from_anywhere(packed):
    text = packed.to_html()
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    assert not re.search(r"\bimport\s*[({\"']|\bfetch\(|XMLHttpRequest|@import|url\(", text)


def test_two_fragments_on_a_page_do_not_share_a_name(packed):
    names = [re.search(r'data-attnlib="(\w+)"', packed.to_html())[1] for _ in range(2)]
    assert names[0] != names[1]


def test_saving_is_all_or_nothing(packed, tmp_path, monkeypatch):
    from attnlib.widgets import viewing

    path = packed.save_html(tmp_path / "deep" / "page.html")
    before = path.read_text()
    assert before.startswith("<!doctype html>")

    def fails(*_):
        raise RuntimeError("no")

    monkeypatch.setattr(viewing, "page", fails)
    with pytest.raises(RuntimeError):
        packed.save_html(path)
    assert path.read_text() == before
    assert [one.name for one in path.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": 3}, "layer 3 does not exist"),
        ({"layer": -4}, "layer -4"),
        ({"head": 2}, "head 2"),
        ({"head": "median"}, "median"),
        ({"query": (5, 0)}, "query 5"),
        ({"query": 3}, r"patch \(row, column\)"),
        ({"palette": "jet"}, "palette"),
        ({"cuts": (2, 1, 3)}, "cuts"),
        ({"small_maps": "some"}, "small_maps"),
        ({"compare": {"colour": 1}}, "colour"),
        ({"compare": {"source": 1}}, "source 1"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(scene, options, words):
    from attnlib.errors import InputError
    from attnlib.widgets import viewer

    with pytest.raises(InputError, match=words):
        viewer(scene["record"], scene["picture"], **options)


def test_a_page_that_would_freeze_a_browser_is_refused_with_a_way_out(scene):
    from attnlib.errors import BudgetError
    from attnlib.widgets import viewer

    with pytest.raises(BudgetError, match=r"max_mb=0\.001.*budget_mb"):
        viewer(scene["record"], scene["picture"], max_mb=0.001)


def test_patches_without_their_picture_and_text_with_one_are_refused(scene, sentence):
    from attnlib.errors import InputError
    from attnlib.widgets import viewer

    with pytest.raises(InputError, match="give its picture"):
        viewer(scene["record"])
    with pytest.raises(InputError, match="patch"):
        viewer(sentence["record"], scene["picture"])


def test_the_poster_shows_the_first_selection(scene):
    from attnlib.widgets import viewer
    from attnlib.widgets.poster import selected_relevance

    record = scene["record"]
    relevance = selected_relevance(record, place=0, head=1, query=(3, 4))
    expected = scene["weights"][0][:, 1, 1 + 3 * 7 + 4]
    torch.testing.assert_close(relevance.scores, expected)
    assert (
        viewer(record, scene["picture"], layer=0).poster != viewer(record, scene["picture"], layer=1).poster
    )


def test_the_poster_knows_what_is_padding(scene):
    from dataclasses import replace

    from attnlib.widgets.poster import selected_relevance

    record = scene["record"]
    layer = record.layers[0]
    seen = torch.arange(layer.num_keys).expand(layer.source.shape[0], -1) < layer.num_keys - 3
    relevance = selected_relevance(replace(record, seen={layer.stream: seen}), place=0)
    assert relevance.share().flatten()[-3:].tolist() == [0, 0, 0]
    assert selected_relevance(record, place=0).share().flatten()[-3:].min() > 0


def test_text_knows_the_tokens_it_was_given(sentence):
    from attnlib.record import AttentionRecord
    from attnlib.widgets import viewer

    nameless = AttentionRecord.from_weights(sentence["weights"])
    spec = viewer(nameless, tokens=sentence["tokens"]).document["sources"][0]
    assert spec["query_tokens"] == spec["key_tokens"] == sentence["tokens"]
    assert spec["query_words"] == [(0, 1), (1, 2), (2, 4), (4, 5), (5, 6), (6, 7)]


def test_a_relevance_of_another_grid_is_refused(scene):
    from attnlib.errors import InputError
    from attnlib.layout import TokenLayout
    from attnlib.record import Relevance
    from attnlib.widgets import viewer

    other = Relevance(torch.rand(1, 6), TokenLayout((2, 3), readout="patches"))
    with pytest.raises(InputError, match="grid"):
        viewer(scene["record"], scene["picture"], relevances={"other": other})


def test_the_part_a_method_starts_from_is_left_out_of_map_and_prefix_share(scene, read):
    from attnlib.record import Relevance
    from attnlib.widgets import viewer

    scores, identity = torch.full((1, 36), 0.5 / 36), torch.zeros(1, 36)
    scores[0, 0] += 0.5
    identity[0, 0] = 0.5
    relevance = Relevance(scores, scene["layout"], method="rollout", identity=identity)
    shown = viewer(scene["record"], scene["picture"], relevances={"rollout": relevance})
    one = shown.document["sources"][0]["maps"][0]
    assert one["prefix"] == pytest.approx(1 / 36, rel=1e-4)
    np.testing.assert_allclose(read(shown.blob, one["values"]), 0.5 / 36, rtol=1e-5)


def test_head_patterns_are_one_where_a_head_does_nothing_else():
    from attnlib.record import AttentionRecord
    from attnlib.widgets import head_patterns

    tokens = ["[CLS]", "a", "b", "a", "[SEP]"]
    before = torch.eye(5).roll(-1, dims=1)
    ends = torch.zeros(5, 5)
    ends[:, 4] = 1
    twin = torch.eye(5)[[0, 3, 2, 1, 4]]
    table = head_patterns(AttentionRecord.from_weights([torch.stack([before, ends, twin])[None]]), tokens)
    measured = table[["token before", "separators", "same word"]].to_numpy()
    np.testing.assert_allclose(measured, [[1, 0.25, 0], [0, 1, 0], [0, 0, 1]])
    assert table["token before, even"][0] == pytest.approx(0.2)
    assert table["same word, even"][0] == pytest.approx(0.2)


def test_a_pattern_that_no_token_can_follow_is_not_a_number():
    from attnlib.record import AttentionRecord
    from attnlib.widgets import head_patterns

    table = head_patterns(AttentionRecord.from_weights([torch.full((1, 2, 3, 3), 1 / 3)]), ["a", "b", "c"])
    assert table["same word"].isna().all()
    assert table["separators"].isna().all()


def test_where_nothing_was_found_the_background_alone_is_no_part(scene):
    from attnlib import explain
    from attnlib.regions import Region, Regions
    from attnlib.widgets import viewer
    from attnlib.widgets.telling import region_table

    height, width = scene["picture"].size
    rest = Region("the background", np.ones((height, width), dtype=bool), "background", "nothing was found")
    alone = Regions((rest,), (height, width))
    made = viewer(scene["record"], scene["picture"], regions=alone)
    assert made.document["sources"][0]["regions"] == []
    assert "no named part" in region_table(alone, explain(scene["record"], "rollout"))
