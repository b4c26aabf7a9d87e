import json

import pytest
import torch


@pytest.fixture(scope="module")
def loaded():
    from attnlib import load_model

    return load_model("scenes-vit")


@pytest.fixture(scope="module")
def board(loaded, tmp_path_factory):
    from attnlib.evaluate import measure_model

    return measure_model(
        loaded,
        {"generic_relevance": {}, "rollout from 2": {"method": "rollout", "start_layer": 2}, "raw": {}},
        count=40,
        checks=6,
        seed=31,
        cache=tmp_path_factory.mktemp("cache"),
    )


def test_a_method_with_gradients_finds_the_thing_on_scenes_of_a_new_seed(board):
    for measure in ("mass_inside", "average_precision", "faithfulness", "grid_pointing"):
        noise = "uniform" if measure in ("mass_inside", "grid_pointing") else "random"
        gain = board.against("scenes-vit", "generic_relevance", noise, measure)
        assert gain.low > 0.1, measure
    assert board.against("scenes-vit", "generic_relevance", "raw", "mass_inside").low > 0


def test_baselines_stand_in_every_board_and_know_nothing(board):
    area = board.estimate("scenes-vit", "uniform", "mass_inside").value
    assert area < 0.12
    for name in ("uniform", "random"):
        chance = board.estimate("scenes-vit", name, "faithfulness")
        assert abs(chance.value) < 0.12
        assert board.estimate("scenes-vit", name, "grid_pointing").value == pytest.approx(0.25, abs=0.03)


def test_a_map_of_attention_alone_ignores_the_label_and_that_is_seen(board):
    assert board.estimate("scenes-vit", "raw", "label_matters").value > 0.99
    assert board.estimate("scenes-vit", "generic_relevance", "label_matters").value < 0.9


def test_the_frame_has_intervals_and_differences_from_noise(board):
    frame = board.to_frame().set_index(["method", "measure"])
    cell = frame.loc[("generic_relevance", "average_precision")]
    assert cell["low"] < cell["value"] < cell["high"]
    assert cell["above_noise_low"] > 0
    assert cell["count"] == 40


def test_a_repeated_run_reads_its_cache_and_gives_the_same(loaded, tmp_path, monkeypatch):
    from attnlib.evaluate import measure_model, measuring

    options = {"count": 5, "checks": 2, "seed": 7, "cache": tmp_path}
    first = measure_model(loaded, ["raw"], **options)
    assert len(list(tmp_path.iterdir())) == 5  # the method and four baselines

    def fail(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(measuring._Bench, "_map_values", fail)
    monkeypatch.setattr(measuring._Bench, "measured", fail)
    again = measure_model(loaded, ["raw"], **options)
    for key, value in first.values.items():
        torch.testing.assert_close(value, again.values[key], equal_nan=True)


def test_a_method_that_refuses_is_listed_with_its_reason_and_the_others_are_measured(loaded, monkeypatch):
    from attnlib.errors import NeedsError
    from attnlib.evaluate import Trials, measure_model

    usual = Trials.map_from

    def refuse(self, record, method, **options):
        if method == "rollout":
            raise NeedsError("needs what is not there")
        return usual(self, record, method, **options)

    monkeypatch.setattr(Trials, "map_from", refuse)
    board = measure_model(loaded, ["rollout", "raw"], count=3, checks=2)
    assert board.refusals["scenes-vit", "rollout"] == "NeedsError: needs what is not there"
    assert ("scenes-vit", "rollout", "mass_inside") not in board.values
    assert board.estimate("scenes-vit", "raw", "mass_inside").count == 3


def test_methods_that_share_a_capture_have_the_maps_that_they_have_alone(loaded):
    from attnlib.evaluate import maps_of_method, maps_of_methods, scene_trials

    trials = scene_trials(loaded, 7, seed=5)
    rows = {name: {"method": name} for name in ("raw", "generic_relevance", "legrad", "grad_cam", "cp_lrp")}
    rows["late"] = {"method": "rollout", "start_layer": 2}
    found = maps_of_methods(trials, rows, chunk=3)
    assert not found.errors
    for name, options in rows.items():
        method = options["method"]
        alone = maps_of_method(trials, method, **{k: v for k, v in options.items() if k != "method"})
        torch.testing.assert_close(found.maps[name], alone, atol=1e-5, rtol=1e-4)
        assert found.seconds[name] > 0


def test_rows_named_slow_have_fewer_scenes_for_grid_and_checks_and_their_cells_say_so(loaded):
    from attnlib.evaluate import measure_model

    board = measure_model(loaded, ["raw", "rollout"], count=5, checks=4, slow={"rollout": 2}, baselines=False)
    counts = {key[1:]: board.estimate(*key).count for key in board.values if key[2] != "artifact_share"}
    assert counts["raw", "grid_pointing"] == counts["rollout", "mass_inside"] == 5
    assert counts["raw", "label_matters"] == 4
    assert counts["rollout", "grid_pointing"] == counts["rollout", "label_matters"] == 2
    assert ("rollout", "head_agreement") not in counts
    assert counts["raw", "head_agreement"] == 4
    assert not {name for name, _ in counts} & {"uniform", "random"}


def test_the_twin_on_permuted_labels_gives_other_maps_where_a_method_reads_what_was_learned(loaded):
    from attnlib import load_model
    from attnlib.evaluate import measure_model

    twin = load_model("scenes-permuted")
    board = measure_model(loaded, ["generic_relevance"], count=4, checks=4, twin=twin, baselines=False)
    same = measure_model(loaded, ["generic_relevance"], count=4, checks=4, twin=loaded, baselines=False)
    key = ("scenes-vit", "generic_relevance", "label_randomisation")
    assert same.estimate(*key).value == pytest.approx(1.0, abs=1e-6)
    assert board.estimate(*key).value < 0.7


def test_a_model_that_writes_is_asked_for_the_next_word_of_its_caption():
    from attnlib import load_model
    from attnlib.evaluate import maps_of_methods, mass_inside, scene_trials

    trials = scene_trials(load_model("scenes-captioner"), 11, seed=31)
    for scene, target, begun in zip(trials.scenes, trials.targets, trials.begun, strict=True):
        assert f"{begun} {target}" in scene.caption
    assert len({len(begun.split()) for begun in trials.begun}) > 1
    assert (trials.hit(trials.pixel_values) == 1).all()
    # one by one, nothing is padded: the words that fill up a batch must not be read
    alone = torch.cat([trials.part(i, i + 1).logits(trials.pixel_values[i : i + 1]) for i in range(11)])
    torch.testing.assert_close(trials.logits(trials.pixel_values), alone, atol=1e-3, rtol=1e-4)
    found = maps_of_methods(trials, {name: {"method": name} for name in ("raw", "generic_relevance")})
    single = maps_of_methods(trials.part(3, 4), {"raw": {"method": "raw"}})
    torch.testing.assert_close(found.maps["raw"][3:4], single.maps["raw"], atol=1e-5, rtol=1e-3)
    for maps in found.maps.values():
        assert mass_inside(maps, trials.masks).mean() > 3 * trials.masks.float().mean()


def test_a_model_that_was_not_trained_on_scenes_is_refused():
    from attnlib import load_model
    from attnlib.errors import InputError
    from attnlib.evaluate import scene_trials

    with pytest.raises(InputError, match="not trained on scenes"):
        scene_trials(load_model("agreement-bert"), 3)


def test_the_shortcut_board_takes_the_watermark_for_the_truth():
    from attnlib import load_model
    from attnlib.evaluate import maps_of_method, mass_inside, shortcut_trials

    trials = shortcut_trials(load_model("scenes-shortcut"), 20, seed=9)
    maps = maps_of_method(trials, "generic_relevance")
    on_mark = mass_inside(maps, trials.masks).mean()
    area = trials.masks.float().mean()
    stars = torch.stack([torch.from_numpy(scene.mask("star")) for scene in trials.scenes])
    assert on_mark > 5 * area
    assert on_mark > mass_inside(maps, stars).mean()


def test_the_shipped_scoreboard_covers_the_models_and_says_how_many_scenes():
    from attnlib.evaluate import MEASURES, shipped_scoreboard

    board = shipped_scoreboard()
    assert board["format"] == "attnlib.scoreboard/1"
    assert {"scenes-vit", "scenes-mean"} <= {cell["model"] for cell in board["cells"]}
    assert {cell["measure"] for cell in board["cells"]} <= set(MEASURES)
    main = [c for c in board["cells"] if c["method"] == "rollout" and c["measure"] == "mass_inside"]
    assert main
    assert all(cell["count"] >= 200 for cell in main)
    json.dumps(board)


def test_on_sentences_the_deciding_word_is_the_truth():
    from attnlib import load_model
    from attnlib.evaluate import measure_sentences

    board = measure_sentences(load_model("agreement-bert"), ["raw", "cp_lrp"], count=40, seed=31)
    name = "agreement-bert"
    assert board.against(name, "cp_lrp", "uniform", "mass_inside").low > 0.2
    assert board.against(name, "cp_lrp", "random", "faithfulness").low > 0.1
    assert board.against(name, "cp_lrp", "raw", "mass_inside").low > 0
    assert board.estimate(name, "raw", "label_matters").value > 0.99
    assert board.estimate(name, "cp_lrp", "label_matters").value < 0
    assert board.estimate(name, "cp_lrp", "mass_inside").count == 40
    chance = board.estimate(name, "uniform", "mass_inside").value
    assert board.estimate(name, "uniform", "pointing").value == pytest.approx(chance)


def test_decompx_is_asked_about_the_label_of_the_trial(loaded):
    from attnlib.evaluate import CLASSES, maps_of_method, scene_trials, similarity

    trials = scene_trials(loaded, 3, seed=5)
    others = [CLASSES[(CLASSES.index(target) + 3) % len(CLASSES)] for target in trials.targets]
    own, other = (maps_of_method(t, "decompx") for t in (trials, trials.with_targets(others)))
    assert (similarity(own, other) < 0.9).all()


def test_the_page_has_a_row_for_every_method_and_marks_columns_that_a_constant_map_wins(
    board, monkeypatch, root
):
    from dataclasses import replace

    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import scoreboard_page

    monkeypatch.setattr(scoreboard_page, "embedded_table", lambda: ["not measured here"])
    about = {**board.about, "models": ["scenes-vit"], "fewer_scenes": {"flow": 3}, "machine": "a machine"}
    page = scoreboard_page.markdown(replace(board, about=about), "a command", "1 minute", "The choice.")
    lines = page.splitlines()
    for method in ("generic_relevance", "rollout from 2", "raw", "*uniform*", "*edges*"):
        assert any(line.startswith(f"| {method} |") for line in lines), method
    head = next(line for line in lines if line.startswith("| method |"))
    assert "stability ↑†" in head
    assert "heads agree ↑†" in head
    assert "mass inside ↑ |" in head
    assert "random labels" not in head  # no twin was given
    assert "1 minute; a machine" in page


def test_measures_that_a_constant_map_wins_say_so():
    from attnlib.evaluate import MEASURES

    winners = {name for name, measure in MEASURES.items() if measure.constant_wins}
    assert winners == {"stability", "sensitivity", "hot_background", "head_agreement", "spike_share"}
    for name in winners:
        assert "win" in MEASURES[name].constant


def test_too_small_boards_and_empty_selections_are_refused(loaded):
    from attnlib.errors import InputError
    from attnlib.evaluate import agreement_sentences, grid_trials, measure_model

    with pytest.raises(InputError, match="at least two"):
        measure_model(loaded, ["raw"], count=1)
    with pytest.raises(InputError, match="empty selection"):
        measure_model(loaded, [], count=5, checks=2)
    with pytest.raises(InputError, match="at least one scene"):
        grid_trials(loaded, 0)
    with pytest.raises(InputError, match="one sentence or more"):
        agreement_sentences(0)
