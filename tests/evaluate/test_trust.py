import json

import pytest
import torch


@pytest.fixture(scope="module")
def case():
    from attnlib import capture, explain, load_model
    from attnlib.evaluate import CLASSES, make_scene

    loaded = load_model("scenes-vit")
    scene = make_scene(5, 1, classes=["star", "portrait"], decoys=1)
    record = capture(loaded, [scene.picture], target=CLASSES.index("star"))
    return loaded, scene, explain(record, "generic_relevance")


@pytest.fixture(scope="module")
def full(case):
    from attnlib.evaluate import CLASSES, trust

    loaded, scene, relevance = case
    return trust(relevance, loaded, [scene.picture], target=CLASSES.index("star"), checks="all")


def test_a_map_of_the_evidence_beats_random_orders(full):
    assert full["deletion"].value < full["deletion"].baseline - 0.2
    assert full["faithfulness"].verdict == "better"
    assert full["deletion"].source == "this picture"


def test_a_map_of_the_evidence_depends_on_weights_and_label(full):
    assert full["weights_matter"].value < 0.6
    assert full["label_matters"].value < 0.9
    assert full["stability"].value > 0.8
    assert full["stability"].verdict == "no merit alone"


def test_known_truth_names_model_scenes_and_interval(full):
    known = [n for n in full.numbers if n.source.startswith("known truth")]
    assert known
    for number in known:
        assert number.low <= number.value <= number.high
        assert "scenes" in number.source


def test_a_model_that_returns_bare_logits_is_measured_by_its_label_given_by_name(case, full):
    from dataclasses import replace

    from attnlib.errors import InputError
    from attnlib.evaluate import trust

    loaded, scene, relevance = case

    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.config = loaded.model, loaded.model.config

        def forward(self, pixel_values):
            return self.inner(pixel_values=pixel_values).logits

    bare = replace(loaded, model=Bare())
    told = trust(relevance, bare, [scene.picture], target="star", checks=["perturbation", "label"])
    for name in ("deletion", "insertion", "label_matters"):
        assert told[name].value == pytest.approx(full[name].value, abs=1e-5)
    with pytest.raises(InputError, match="unknown label 'comet'"):
        trust(relevance, bare, [scene.picture], target="comet")


def test_a_map_of_the_pixels_alone_is_found_out(case):
    from attnlib import Relevance
    from attnlib.evaluate import baseline_maps, trust

    loaded, scene, relevance = case
    layout = relevance.layout

    def edges(inputs):
        maps = baseline_maps("edges", inputs["pixel_values"], layout.grid).flatten(1)
        prefix = torch.zeros(len(maps), layout.num_prefix_tokens)
        return Relevance(torch.cat([prefix, maps], dim=1), layout, "edges by hand")

    inputs = loaded.prepare([scene.picture]).inputs
    told = trust(edges(inputs), loaded, inputs, checks=["randomisation", "label"], again=edges)
    assert told["weights_matter"].value == pytest.approx(1.0)
    assert told["weights_matter"].verdict == "no better"
    assert "label" in told.left_out


def test_cheap_checks_are_the_default_and_the_rest_is_named_with_its_cost(case):
    from attnlib.evaluate import CHECKS, trust

    loaded, scene, relevance = case
    told = trust(relevance, loaded, [scene.picture])
    assert {"stability", "randomisation", "label"} <= set(told.left_out)
    assert told.left_out["stability"] == CHECKS["stability"]
    assert told.seconds > 0


def test_a_check_that_would_take_too_long_is_left_out_and_its_cost_told(case):
    from attnlib.evaluate import trust

    loaded, scene, relevance = case
    told = trust(relevance, loaded, [scene.picture], seconds=0.0)
    assert "would take about" in told.left_out["perturbation"]
    assert not any(n.name == "deletion" for n in told.numbers)


def test_a_score_of_ones_own_is_watched_instead_of_the_label(case, full):
    from attnlib.evaluate import CLASSES, trust

    loaded, scene, relevance = case
    star = CLASSES.index("star")

    def score(output):
        return 2 * output.logits[:, star].sigmoid()

    told = trust(relevance, loaded, [scene.picture], checks="perturbation", score=score)
    assert told["deletion"].value == pytest.approx(2 * full["deletion"].value, abs=1e-5)
    assert told["insertion"].value == pytest.approx(2 * full["insertion"].value, abs=1e-5)


def test_without_a_model_only_what_needs_none_is_told(case):
    from attnlib.evaluate import trust

    told = trust(case[2])
    # lone spikes are read off the map itself
    assert {n.name for n in told.numbers if n.source == "this picture"} <= {"spike_share"}
    assert any(n.source.startswith("known truth") for n in told.numbers)
    assert "needs the model" in told.left_out["perturbation"]


def test_the_panel_is_text_table_and_json_with_the_same_numbers(full):
    content = json.loads(full.to_json())
    assert content["schema"] == "attnlib.trust/1"
    assert len(content["numbers"]) == len(full.numbers) == len(full.to_frame())
    for number in full.numbers:
        assert f"{number.value:.2f}" in full.to_markdown()
        assert number.sentence in full.to_markdown()
        assert f"{number.baseline:.2f}" in number.sentence
    assert "fractions of 1" in full.to_markdown()
    assert "fractions of 1" in full.to_html()


def test_lone_spikes_are_told_and_a_clean_map_gets_no_merit_for_having_none(case, full):
    from attnlib import Relevance
    from attnlib.evaluate import trust

    assert full["spike_share"].verdict in ("no merit alone", "look there")
    layout = case[2].layout
    scores = torch.ones(1, layout.num_tokens)
    flat = trust(Relevance(scores, layout), case[0], [case[1].picture], checks="artifacts")
    assert flat["spike_share"].value == 0
    assert flat["spike_share"].verdict == "no merit alone"
    scores[0, layout.token_index(5, 5)] = 100
    spiky = trust(Relevance(scores, layout), case[0], [case[1].picture], checks="artifacts")
    assert spiky["spike_share"].value > 0.3
    assert spiky["spike_share"].verdict == "look there"


def test_agreement_of_heads_is_that_of_the_last_layers_rows(case, full):
    from attnlib import capture, explain
    from attnlib.evaluate import head_agreement

    loaded, scene, _ = case
    record = capture(loaded, [scene.picture])
    heads = [explain(record, "raw", heads=h).heatmap() for h in range(record.layers[-1].num_heads)]
    wanted = float(head_agreement(torch.stack(heads, dim=1))[0])
    assert full["head_agreement"].value == pytest.approx(wanted, abs=1e-6)
    assert full["head_agreement"].verdict == "no merit alone"


def test_artifact_share_stands_beside_the_area_of_outlying_patches_or_the_panel_says_there_are_none(
    case, full
):
    from attnlib.evaluate import artifact_patches, artifact_share, token_norms

    loaded, scene, relevance = case
    pixels = {"pixel_values": loaded.prepare([scene.picture]).inputs["pixel_values"]}
    outlying = artifact_patches(token_norms(loaded.model, pixels, relevance.layout))
    found = [n for n in full.numbers if n.name == "artifact_share"]
    if not outlying.any():
        assert not found
        assert any("outlying norm" in note for note in full.notes)
        return
    (number,) = found
    assert number.baseline == pytest.approx(float(outlying.float().mean()))
    share = artifact_share(relevance.heatmap(), outlying)
    assert number.value == pytest.approx(float(share[0]), rel=1e-3)


def test_known_truth_says_what_it_is_about_and_takes_the_row_of_the_start_layer(case):
    from dataclasses import replace

    from attnlib.evaluate import shipped_scoreboard, trust

    *_, relevance = case
    told = trust(relevance, checks="known_truth")
    assert any("small model whose scenes were generated" in note for note in told.notes)
    assert all(number.sentence.startswith("On generated scenes, ") for number in told.numbers)
    assert "not measured" not in " ".join(told.notes)
    later = replace(relevance, options={**relevance.options, "start_layer": 3})
    assert "start_layer=3, which was not measured there" in " ".join(trust(later).notes)
    late = replace(relevance, options={**relevance.options, "start_layer": 2})
    cells = {
        (c["method"], c["measure"]): c["value"]
        for c in shipped_scoreboard()["cells"]
        if c["model"] == "scenes-vit"
    }
    assert told["mass_inside"].value == cells["generic_relevance", "mass_inside"]
    assert (
        trust(late, checks="known_truth")["mass_inside"].value
        == cells["generic_relevance from 2", "mass_inside"]
    )


@pytest.mark.parametrize(
    ("prefix", "readout", "query", "model"),
    [
        (("class",), [0], "class", "scenes-vit"),
        (("class",), "patches", "mean of the patches", "scenes-mean"),
        (("class",), range(36), "mean of 36 tokens", "scenes-mean"),
        (("class", "register 1"), "patches", "mean of the patches", "scenes-registers"),
        (("class", "register 1"), [0], "class", "scenes-vit"),
        (("class",), [0], "token 3 of the decoder", "scenes-captioner"),
    ],
)
def test_a_map_is_compared_with_the_model_that_answers_in_the_same_way(prefix, readout, query, model):
    from attnlib import Relevance, TokenLayout
    from attnlib.evaluate import shipped_scoreboard, trust

    layout = TokenLayout((5, 7), 4, prefix, readout)
    map_ = Relevance(torch.rand(1, layout.num_tokens), layout, "generic_relevance", query=query)
    told = trust(map_, checks="known_truth")
    assert {number.source.split(",")[0] for number in told.numbers} == {f"known truth: {model}"}
    assert model in {cell["model"] for cell in shipped_scoreboard()["cells"]}


def test_a_map_over_words_has_its_known_truth_from_sentences():
    from attnlib import capture, explain, load_model
    from attnlib.evaluate import shipped_scoreboard, trust

    record = capture(load_model("agreement-bert"), ["the old key near the boys [MASK] here ."], target=0)
    told = trust(explain(record, "generic_relevance"), checks="known_truth")
    if not any(c["model"] == "agreement-bert" for c in shipped_scoreboard()["cells"]):
        pytest.fail("the shipped scoreboard has no rows for text")
    number = told["mass_inside"]
    assert "the word that decides" in number.sentence
    assert "sentences" in number.source
    assert number.verdict == "better"


@pytest.mark.parametrize(("name", "size"), [("scenes-captioner", None), ("scenes-vit", 128)])
def test_artifacts_are_looked_for_with_all_that_the_model_takes(name, size):
    from attnlib import capture, explain, load_model
    from attnlib.evaluate import make_scene, trust

    loaded = load_model(name)
    prepared = loaded.prepare([make_scene(5, 1).picture], size=size)
    relevance = explain(capture(loaded, prepared).over_picture(), "rollout")
    told = trust(relevance, loaded, prepared, checks="artifacts")
    assert told.left_out.keys().isdisjoint({"artifacts"})
    assert "artifact_share" in [n.name for n in told.numbers] or "outlying norm" in " ".join(told.notes)


def test_html_escapes_and_brings_no_scripts(full):
    from dataclasses import replace

    evil = replace(full, notes=("<script>alert(1)</script>",), method="<b>")
    page = evil.to_html()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page


def test_unknown_checks_and_items_are_refused(case):
    from attnlib.errors import InputError
    from attnlib.evaluate import trust

    with pytest.raises(InputError, match="unknown checks"):
        trust(case[2], checks=["luck"])
    with pytest.raises(InputError, match="unknown checks"):
        trust(case[2], checks=[])
    with pytest.raises(InputError, match="outside the batch"):
        trust(case[2], item=3)


def test_the_model_is_as_before_after_all_checks(case):
    from attnlib.evaluate import trust

    loaded, scene, relevance = case
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    trust(relevance, loaded, [scene.picture], checks=["randomisation"])
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())
    assert all(p.grad is None for p in loaded.model.parameters())


@pytest.mark.parametrize(
    "query", [None, "mean", "register 2", (2, 5), ["class", "register 1"], [(0, 1), (4, 6)]]
)
def test_the_query_of_a_map_is_read_back_from_its_words(query):
    from attnlib import AttentionRecord, TokenLayout, explain
    from attnlib.evaluate.again import asked_query

    layout = TokenLayout((5, 7), 10, ("class", "register 1", "register 2"), (0, 1))
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(2, 1, 2, 38, 38, generator=generator, dtype=torch.float64).softmax(dim=-1)
    record = AttentionRecord.from_weights([*weights], layout=layout)
    given = explain(record, "rollout", query=query)
    again = explain(record, "rollout", query=asked_query(given))
    assert torch.equal(given.scores, again.scores)


def test_what_a_head_reads_of_many_tokens_is_asked_for_again():
    from attnlib import AttentionRecord, TokenLayout, explain
    from attnlib.errors import NeedsError
    from attnlib.evaluate.again import asked_query

    layout = TokenLayout((5, 7), 10, ("class", "register 1", "register 2"), (0, *range(3, 38)))
    record = AttentionRecord.from_weights([torch.eye(38).expand(1, 2, 38, 38)], layout=layout)
    assert asked_query(explain(record, "raw")) is None
    with pytest.raises(NeedsError, match="9 tokens"):
        asked_query(explain(record, "raw", query=list(range(9))))


def test_words_that_name_no_tokens_cannot_be_asked_again():
    from attnlib import Relevance, TokenLayout
    from attnlib.errors import NeedsError
    from attnlib.evaluate.again import asked_query

    for words in ("mean of 12 tokens", "one per item: class; patch (1, 2)", "magic"):
        with pytest.raises(NeedsError, match="cannot be asked again"):
            asked_query(Relevance(torch.ones(1, 36), TokenLayout((5, 7), 10, 1), query=words))


def test_a_map_of_the_first_answer_of_a_model_without_labels_is_made_again(saliency):
    from attnlib import capture, explain
    from attnlib.evaluate import trust
    from attnlib.evaluate.answer import first_answer

    prepared = saliency.prepare(["sample:poster"], size=70)
    given = explain(capture(saliency, prepared, target=first_answer), "gradient_rollout", start_layer=10)
    told = trust(given, saliency, prepared, checks="stability")
    assert told["stability"].value > 0.5
