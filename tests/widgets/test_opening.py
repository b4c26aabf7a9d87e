"""Opening: the first picture comes before what takes long; redrawing keeps what the hand has chosen."""

import numpy as np
import pytest
import torch


@pytest.fixture
def large(scene, monkeypatch):
    """The small scene, with the limit from which a method counts as slow below it."""
    from attnlib.widgets import bench

    monkeypatch.setattr(bench, "_LARGE", 10)
    return scene


def test_layers_are_shown_before_a_slow_method_and_its_map_after(large, monkeypatch):
    import threading

    from attnlib import explore
    from attnlib.widgets.bench import Bench

    go_on, real = threading.Event(), Bench.explain
    monkeypatch.setattr(Bench, "explain", lambda self: (go_on.wait(20), real(self)))
    opened = explore(large["record"], large["picture"], regions=None)
    assert opened.viewer is not None
    assert opened.viewer.state["a"]["map"] == 0
    assert opened.viewer.document["sources"][0]["maps"] == []
    go_on.set()
    assert opened.wait(60)
    assert opened.problem.value == ""
    assert opened.viewer.state["a"]["map"] == 1
    assert "rollout" in opened.text.value


def test_an_unknown_method_is_refused_at_once(large):
    from attnlib import explore
    from attnlib.errors import InputError

    with pytest.raises(InputError, match="rolout"):
        explore(large["record"], large["picture"], method="rolout")


def test_a_redrawing_keeps_look_sides_and_map(scene):
    from attnlib import explore

    opened = explore(scene["record"], scene["picture"], regions=scene["regions"])
    assert opened.wait(60)
    chosen = {**opened.viewer.state["a"], "map": 0, "layer": 0, "head": 1, "heads": "one"}
    opened.viewer.state = {
        **opened.viewer.state,
        "a": chosen,
        "alpha": 0.3,
        "two": True,
        "multiples": "heads",
    }
    opened.show()
    state = opened.viewer.state
    assert (state["alpha"], state["two"], state["multiples"]) == (0.3, True, "heads")
    assert (state["a"]["map"], state["a"]["layer"], state["a"]["head"]) == (0, 0, 1)
    opened.refresh()
    assert opened.wait(60)
    assert opened.viewer.state["a"]["map"] == 1
    assert opened.viewer.state["alpha"] == 0.3


def test_rows_that_read_a_whole_layer_are_read_once():
    from attnlib.layout import TokenLayout
    from attnlib.record import AttentionRecord
    from attnlib.widgets.image_source import readout_row

    weights = torch.softmax(torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    layout = TokenLayout((3, 5), 13, ("class",), readout="patches")
    layer = AttentionRecord.from_weights([weights], layout=layout).layers[0]
    first = readout_row(layer, layout)
    layer.source = None
    again = readout_row(layer, layout)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first.flatten(1), weights[0, :, 1:, 1:].mean(dim=1), rtol=1e-5)


def test_what_the_first_picture_does_not_need_stands_behind(scene):
    from attnlib.widgets import viewer

    shown = viewer(scene["record"], scene["picture"])
    split = shown.document["split"]
    for layer in shown.document["sources"][0]["layers"]:
        assert layer["rows"]["offset"] < split
        assert layer["queries"]["offset"] >= split
    assert shown.document["sources"][0]["picture"]["offset"] < split
    assert len(shown.blob) > split
