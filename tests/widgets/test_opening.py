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


@pytest.fixture
def slow_search(monkeypatch):
    """A search for parts that waits until it is told to go on."""
    import threading

    import attnlib.finders
    from attnlib.regions import Regions

    begun, go_on = threading.Event(), threading.Event()

    def search(picture):
        begun.set()
        assert go_on.wait(120)
        return Regions.from_masks({"a part": np.eye(*picture.size)})

    monkeypatch.setattr(attnlib.finders, "find_regions", search)
    yield begun, go_on
    go_on.set()


def test_the_hand_is_not_kept_waiting_by_the_search_for_parts(scene, slow_search):
    from attnlib import explore

    begun, go_on = slow_search
    opened = explore(scene["record"], scene["picture"])
    assert begun.wait(20)
    opened.state.goto(0, 1)
    assert opened.viewer.state["a"]["layer"] == 0
    assert not opened.wait(0)
    go_on.set()
    assert opened.wait(60)
    assert "a part" in opened.table.value
    assert opened.viewer.document["sources"][0]["regions"][0]["name"] == "a part"


def test_a_search_can_be_cancelled_while_it_runs_and_its_result_is_used_later(scene, slow_search):
    from attnlib import explore

    begun, go_on = slow_search
    opened = explore(scene["record"], scene["picture"])
    assert begun.wait(20)
    opened.menu.cancel.click()
    assert opened.wait(20)
    assert "cancelled" in opened.step.value
    go_on.set()
    opened.worker.start(opened.later())
    assert opened.wait(60)
    assert "a part" in opened.table.value


def test_parts_are_looked_for_while_the_model_is_loaded(scene, slow_search, monkeypatch):
    from attnlib.widgets import opening

    begun, go_on = slow_search
    real = opening.load_model
    monkeypatch.setattr(opening, "load_model", lambda name: begun.wait(120) and real(name))
    monkeypatch.setattr(opening, "_HEAVY", "a library that is not loaded yet")
    opened = opening.explore("scenes-vit", scene["picture"])
    assert opened.bench.findings.regions is None
    go_on.set()
    assert opened.wait(60)
    assert "a part" in opened.table.value


def test_where_libraries_are_loaded_the_first_picture_comes_before_the_search(
    scene, slow_search, monkeypatch
):
    import transformers.modeling_utils  # noqa: F401

    from attnlib.widgets import explorer, opening

    begun, go_on = slow_search
    searching = []
    real = explorer.Explorer.show

    def show(self, **options):
        searching.append(begun.is_set())
        real(self, **options)

    monkeypatch.setattr(explorer.Explorer, "show", show)
    opened = opening.explore("scenes-vit", scene["picture"])
    assert searching == [False]
    assert begun.wait(120)
    go_on.set()
    assert opened.wait(60)
    assert "a part" in opened.table.value


def test_a_search_that_fails_is_told_and_tried_again(scene, monkeypatch):
    import attnlib.finders
    from attnlib import explore

    asked = []

    def search(picture):
        asked.append(picture)
        raise ValueError("no parts today")

    monkeypatch.setattr(attnlib.finders, "find_regions", search)
    opened = explore(scene["record"], scene["picture"])
    assert opened.wait(60)
    assert "no parts today" in opened.said.value
    assert opened.text.value
    opened.worker.start(opened.later())
    assert opened.wait(60)
    assert len(asked) == 2


def test_norms_are_heard_in_the_one_pass_and_are_those_of_the_hidden_states():
    from attnlib import explore
    from attnlib.evaluate.artifacts import token_norms
    from attnlib.hooks.blocks import block_of

    opened = explore("scenes-vit", regions=None)
    assert opened.wait(60)
    bench = opened.bench
    layer = bench.vision().layers[-1]
    heard = bench.findings.norms[block_of(bench.loaded.model, layer.name, bench.findings.norms)]
    layout = bench.vision().layout
    told = token_norms(bench.loaded.model, dict(bench._inputs), layout)
    torch.testing.assert_close(heard[:, layout.patch_slice].unflatten(1, layout.grid), told)
    assert "artifact_share" in bench.findings.measures


def test_a_list_of_bare_attention_layers_holds_no_hidden_states():
    from torch import nn

    from attnlib.hooks.blocks import block_of, norms_of_blocks

    model = nn.Module()
    model.layers = nn.ModuleList(
        [nn.Sequential(nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 7))]
    )
    with norms_of_blocks(model) as norms:
        for block in model.layers:
            block(torch.ones(1, 5, 3))
    assert norms["layers.1"].shape == (1, 5)
    assert not any(block._forward_hooks for block in model.layers)
    assert block_of(model, "layers.0.0", norms) is None
    assert block_of(model, "layers.1.0", norms) == "layers.1"
    assert block_of(model, "elsewhere.0", norms) is None


@pytest.mark.parametrize("given", ["sample:poster", "pixels", "file"])
def test_a_picture_alone_is_shown_with_the_usual_model(given, tmp_path):
    from attnlib import explore
    from attnlib.picture import load_picture

    if given != "sample:poster":
        small = load_picture("sample:poster").to_pil().resize((84, 112))
        small.save(tmp_path / "Photo.JPG")
        given = small if given == "pixels" else tmp_path / "Photo.JPG"
    opened = explore(given, regions=None, size=112)
    assert opened.state.model == "dinov2-small-saliency"
    assert opened.wait(60)
    assert opened.problem.value == ""


def test_a_record_of_a_picture_is_never_shown_over_another_one(scene):
    from attnlib import explore
    from attnlib.errors import InputError

    with pytest.raises(InputError, match=r"explore\(record, picture\)"):
        explore(scene["record"])


@pytest.mark.parametrize("given", [42, None, [1, 2]])
def test_what_is_neither_model_nor_record_nor_picture_is_refused_in_words(given):
    from attnlib import explore
    from attnlib.errors import InputError

    with pytest.raises(InputError, match=r"takes a model.*got (int|NoneType|list)"):
        explore(given)
