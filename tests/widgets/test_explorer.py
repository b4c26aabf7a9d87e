"""The explorer without a browser: one state, work that can be cancelled, errors in words, export."""

import json
import threading

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def bench(scene):
    from attnlib import explore

    opened = explore(scene["record"], scene["picture"], method="rollout", regions=scene["regions"])
    assert opened.wait(120)
    return opened


def test_the_explorer_opens_with_map_text_table_and_chart(bench):
    from ipywidgets import Widget

    assert isinstance(bench, Widget)
    assert bench.problem.value == ""
    assert "the middle" in bench.table.value
    assert "even share" in bench.text.value
    assert len(bench.chart.bars) == 3 + 2
    assert bench.viewer.state["a"]["map"] == 1


def test_state_menu_viewer_and_chart_move_together(bench):
    bench.state.goto(1, 1)
    assert bench.menu.layer.value == 1
    assert bench.viewer.state["a"]["layer"] == 1
    assert bench.viewer.state["a"]["heads"] == "one"
    bench.menu.layer.value = 2
    assert bench.state.layer == bench.viewer.state["a"]["layer"] == 2
    bench.viewer.state = {**bench.viewer.state, "a": {**bench.viewer.state["a"], "layer": 0, "query": [3, 4]}}
    assert bench.state.layer == bench.menu.layer.value == 0
    assert bench.state.query == (3, 4)
    assert bench.menu.query.value == "3, 4"
    bench.chart.chosen = {"layer": 1, "head": 0, "at": 1}
    assert (bench.state.layer, bench.state.head, bench.state.heads) == (1, 0, "one")
    bench.menu.query.value = ""
    assert bench.viewer.state["a"]["query"] is None


def test_a_wrong_entry_is_answered_in_place_in_words(bench):
    bench.menu.query.value = "<b>three</b>"
    assert "two whole numbers" in bench.problem.value
    assert "<b>three" not in bench.problem.value
    bench.menu.query.value = ""
    assert bench.problem.value == ""


def test_a_query_that_does_not_exist_is_answered_in_place(bench):
    from attnlib import explore
    from attnlib.errors import InputError

    bench.menu.query.value = "2, 3"
    bench.menu.query.value = "5, 0"
    assert "there are 5x7 patches" in bench.problem.value
    assert bench.state.query is bench.viewer.state["a"]["query"] is None
    bench.menu.query.value = ""
    with pytest.raises(InputError, match="5x7 patches"):
        explore(bench.bench.findings.record, bench.bench.picture, regions=None, query=(5, 0))


def test_a_query_is_given_up_where_another_picture_has_no_such_patch():
    from attnlib import explore

    opened = explore("dinov2-small-saliency", regions=None, size=(98, 126), query=(6, 8))
    opened.bench.size = (98, 70)
    opened.refresh()
    assert opened.wait(60)
    assert opened.state.query is None
    assert "there are 7x5 patches" in opened.said.value
    assert opened.problem.value == ""


def test_text_and_table_follow_the_layer_that_is_shown(bench):
    import time

    from attnlib.bands import percent

    bench.state.goto(0, 1)
    for _ in range(100):
        if "layers=[0]" in bench.text.value:
            break
        time.sleep(0.1)
    assert "layers=[0]" in bench.text.value
    share = bench.bench.findings.regions.shares(bench.relevance())["the middle"]["share"]
    assert f"<td>{percent(share[0])}</td>" in bench.table.value
    bench.state.direction = "to"
    for _ in range(100):
        if "turn it round" in bench.text.value:
            break
        time.sleep(0.1)
    assert "turn it round" in bench.text.value
    bench.state.direction = "from"


def test_what_is_exported_is_what_is_shown(bench, tmp_path):
    bench.state.goto(1, 1)
    bench.viewer.choose(map=1)
    saved = json.loads(bench.save_json(tmp_path / "view.json").read_text())
    assert saved["parameters"] == bench.parameters(tmp_path)
    assert saved["method"] == "rollout"
    np.testing.assert_allclose(np.sum(saved["share"]), 1, rtol=1e-5)
    assert saved["regions"][0]["name"] == "the middle"
    assert bench.save_png(tmp_path / "view.png").read_bytes().startswith(b"\x89PNG")
    page = bench.save_html(tmp_path / "view.html").read_text()
    assert "attnlib-viewer" in page
    assert "even share" in page
    files = [one.name for one in tmp_path.iterdir() if not one.name.startswith("picture-")]
    assert sorted(files) == ["view.html", "view.json", "view.png"]


def test_a_saved_notebook_holds_html_and_a_poster_beside_the_widget(bench):
    data, _ = bench._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "image/jpeg"} <= set(data)
    assert "<script" in data["text/html"]


def test_parameters_of_the_view_open_the_same_view_again(scene, root):
    import nbformat

    from attnlib import explore

    first = explore(
        scene["record"], scene["picture"], method="rollout", regions=None, layer=1, head=1, query=(2, 5)
    )
    parameters = first.parameters()
    notebook = nbformat.read(root / "notebooks" / "01_layers_and_heads.ipynb", 4)
    taken = next(cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert {line.split(":")[0] for line in taken.splitlines()} >= set(parameters)
    again = explore(
        scene["record"],
        scene["picture"],
        method=parameters["method"],
        layer=parameters["layer"],
        head=parameters["head"],
        query=parameters["query"],
        regions=None,
    )
    assert again.state.to_dict() == first.state.to_dict()
    first.wait(60)
    again.wait(60)


def test_a_live_viewer_answers_with_the_exact_weights(scene):
    from attnlib.widgets import viewer

    live = viewer(scene["record"], scene["picture"], budget_mb=0).widget()
    asked = {"layer": 1, "layers": "one", "head": 1, "heads": "one", "query": [2, 3], "direction": "from"}
    (row,), prefix = live.answer(0, asked)
    token = 1 + 2 * 7 + 3
    expected = scene["weights"][1][0, 1, token]
    np.testing.assert_allclose(row, expected[1:], rtol=1e-6)
    assert prefix == pytest.approx(float(expected[0]), rel=1e-4)
    (looked, lift), none = live.answer(0, {**asked, "direction": "to", "heads": "max", "layers": "mean"})
    stack = torch.stack([one[0, :, 1:, token].amax(dim=0) for one in scene["weights"]]).mean(dim=0)
    np.testing.assert_allclose(looked, stack, rtol=1e-5)
    assert none is None
    assert lift.shape == (35,)


def test_a_live_viewer_over_text_answers_for_any_page(sentence):
    from attnlib.widgets import viewer

    live = viewer(sentence["record"], page_size=4, budget_mb=0).widget()
    asked = {"layer": 2, "layers": "one", "head": 0, "heads": "mean", "pageQ": 1, "pageK": 0}
    (matrix,), _ = live.answer(0, asked)
    expected = sentence["weights"][2][0].mean(dim=0)[4:7, 0:4]
    np.testing.assert_allclose(matrix, expected, rtol=1e-6)


def test_a_question_the_kernel_cannot_answer_comes_back_in_words(scene):
    from attnlib.widgets import viewer

    live = viewer(scene["record"], scene["picture"], budget_mb=0).widget()
    sent = []
    live.send = lambda content, buffers=None: sent.append(content)
    bad = {"layer": 0, "layers": "one", "head": 9, "heads": "one", "query": [0, 0], "direction": "from"}
    live._hear(live, {"ask": "1", "source": 0, "request": bad}, [])
    assert "head 9" in sent[0]["error"]


def test_a_cancelled_job_stops_before_its_next_step_and_says_so():
    from attnlib.widgets.work import Cancelled, Worker

    begun, go_on, ended = threading.Event(), threading.Event(), []
    done = []

    def first():
        begun.set()
        go_on.wait(10)

    worker = Worker(lambda *_: None, ended.append)
    worker.start([("first", first), ("second", lambda: done.append("second"))])
    assert begun.wait(10)
    assert worker.busy
    worker.cancel()
    go_on.set()
    assert worker.wait(10)
    assert done == []
    assert isinstance(ended[0], Cancelled)


def test_a_forward_pass_stops_between_two_blocks_and_leaves_no_hook():
    from torch import nn

    from attnlib.hooks.blocks import stoppable
    from attnlib.widgets.work import Cancelled, Worker

    ran, ended = [], []

    class Block(nn.Module):
        def forward(self, x):
            ran.append(1)
            if len(ran) == 3:
                worker.cancel()
            return x

    model = nn.Sequential(nn.ModuleList([Block() for _ in range(7)]))

    def step():
        with stoppable(model, worker.check):
            for block in model[0]:
                block(torch.zeros(1))

    worker = Worker(lambda *_: None, ended.append)
    worker.start([("forward", step)])
    assert worker.wait(10)
    assert len(ran) == 3
    assert isinstance(ended[0], Cancelled)
    assert all(not block._forward_pre_hooks for block in model[0])


def test_a_new_job_takes_the_place_of_the_old_one():
    from attnlib.widgets.work import Worker

    go_on, done = threading.Event(), []
    worker = Worker(lambda *_: None, lambda _: None)
    worker.start([("old", lambda: go_on.wait(10)), ("old too", lambda: done.append("old"))])
    worker.start([("new", lambda: done.append("new"))])
    go_on.set()
    assert worker.wait(10)
    assert done == ["new"]


def test_a_failing_step_is_reported_and_the_next_job_runs():
    from attnlib.widgets.work import Worker

    ended, done = [], []

    def fails():
        raise ValueError("this one")

    worker = Worker(lambda *_: None, ended.append)
    worker.start([("fails", fails), ("never", lambda: done.append("never"))])
    worker.wait(10)
    worker.start([("fine", lambda: done.append("fine"))])
    worker.wait(10)
    assert isinstance(ended[0], ValueError)
    assert ended[1] is None
    assert done == ["fine"]


@pytest.mark.parametrize("given", ["1, 2", "(1,2)", (1, 2), [1, 2]])
def test_a_query_is_read_from_text_and_pairs(given):
    from attnlib.widgets.state import read_query

    assert read_query(given) == (1, 2)


@pytest.mark.parametrize("given", ["1", "1,2,3", "a,b", (1,), [1, None]])
def test_what_is_no_patch_is_refused(given):
    from attnlib.errors import InputError
    from attnlib.widgets.state import read_query

    with pytest.raises(InputError, match="row and column"):
        read_query(given)


def test_callbacks_on_another_thread_neither_race_nor_need_a_grad_switch(bench):
    def move(layer):
        for head in (0, 1, 0, 1):
            bench.state.goto(layer, head)

    threads = [threading.Thread(target=move, args=(layer,)) for layer in (0, 1, 2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert bench.problem.value == ""
    assert bench.viewer.state["a"]["layer"] == bench.menu.layer.value == bench.state.layer
