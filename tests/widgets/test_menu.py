"""The controls of the explorer beside work that goes on: what the hand has chosen stays; merged layers have words."""

import numpy as np
import pytest
import torch


@pytest.fixture
def opened(scene):
    from attnlib import explore

    opened = explore(scene["record"], scene["picture"], regions=scene["regions"])
    assert opened.wait(60)
    return opened


def test_what_waits_for_the_button_is_not_taken_back_by_other_changes(opened):
    menu = opened.menu
    menu.method.value, menu.target.value = "raw", "3"
    opened.state.goto(0, 1)
    opened.show()
    assert (menu.method.value, menu.target.value) == ("raw", "3")
    assert opened.state.method == "rollout"
    opened.state.target = 5
    assert menu.target.value == "5"


def test_choosing_a_head_shows_that_head(opened):
    opened.state.heads = "mean"
    opened.menu.head.value = 1
    assert (opened.state.head, opened.state.heads) == (1, "one")
    assert opened.viewer.state["a"]["heads"] == "one"


def test_fewer_layers_take_no_choice_of_merging_away(opened):
    opened.state.layer, opened.state.layers, opened.state.head, opened.state.heads = 2, "max", 1, "mean"
    opened.menu.limit(1, 1)
    assert (opened.state.layers, opened.state.heads) == ("max", "mean")


@pytest.mark.parametrize("how", ["mean", "max", "min"])
def test_merged_layers_have_words_and_can_be_saved(opened, scene, tmp_path, how):
    opened.viewer.choose(map=0)
    opened.state.layers, opened.state.heads, opened.state.query = how, "mean", (1, 4)
    relevance = opened.relevance()
    rows = torch.stack([one[0].mean(dim=0)[1 + 1 * 7 + 4] for one in scene["weights"]])
    merged = {"mean": rows.mean(dim=0), "max": rows.amax(dim=0), "min": rows.amin(dim=0)}[how]
    np.testing.assert_allclose(relevance.scores[0], merged, rtol=1e-5)
    assert relevance.options["layers"] == [0, 1, 2]
    opened.write()
    assert "even share" in opened.text.value
    assert opened.save_png(tmp_path / "merged.png").stat().st_size > 1000


def test_a_view_without_words_is_saved_all_the_same(opened, tmp_path):
    opened.viewer.choose(map=0)
    opened.state.query, opened.state.direction = (1, 4), "to"
    assert "turn it round" in opened.save_html(tmp_path / "page.html").read_text()
