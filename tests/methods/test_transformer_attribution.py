"""Transformer attribution (CVPR 2021) against the reference values."""

import pytest
import torch
from torch.testing import assert_close

BERT = "Transformer-Explainability-BERT"


def near(got, expected, relative=1e-8):
    expected = torch.tensor(expected)
    assert_close(got.double(), expected, rtol=0, atol=relative * float(expected.abs().max()))


def test_vit_maps_equal_the_published_ones(captured):
    from attnlib import explain

    record, _, values = captured("vit", "ViTForImageClassification")
    expected = values["expected"]
    for options, key in (
        ({}, "transformer_attribution"),
        ({"start_layer": 1}, "transformer_attribution_start_layer_1"),
        ({"gradients": False}, "lrp_rollout"),
    ):
        got = explain(record, "transformer_attribution", **options)
        near(got.scores[:, 1:], expected[key])
    single, _, _ = captured("vit", "ViTForImageClassification", torch.float32)
    near(explain(single, "transformer_attribution").scores[:, 1:], expected["transformer_attribution"], 5e-3)


def test_vit_relevance_of_every_attention_weight_equals_the_published_one(captured):
    from attnlib.methods.relprop_rules import RelevanceRules

    record, _, values = captured("vit", "ViTForImageClassification")
    kept, leaves = [], []
    rules = RelevanceRules(lambda weights, relevance: kept.append(relevance))
    handle = record.on_rerun

    def begin(hidden):
        leaves.append(hidden.detach().requires_grad_())
        return leaves[0]

    score = handle.score("vision", taps={0: begin}, rule=rules, activation=rules.activation)
    handle.gradient(score, leaves[0])
    for got, expected in zip(reversed(kept), values["expected"]["lrp_attention_relevance"], strict=True):
        near(got, expected)


@pytest.mark.parametrize(
    ("start_layer", "key"), [(0, "start_layer_0"), (1, "start_layer_1"), (3, "last_layer")]
)
def test_bert_rows_equal_the_paper_and_its_variant_the_published_code(captured, start_layer, key):
    from attnlib import explain

    record, _, values = captured("bert", "BertForSequenceClassification")
    ask = {"start_layer": start_layer, "query": 0}
    near(explain(record, "transformer_attribution", **ask).scores, values["lrp"][f"{key}.as_published"])
    code = explain(record, "transformer_attribution", variant=BERT, **ask).scores
    near(code, values["lrp"][f"{key}.as_implemented"])


def test_items_of_a_batch_do_not_touch_one_another(captured):
    """The published code rescales sums over the whole batch."""
    from attnlib import capture, explain

    record, inputs, values = captured("bert", "BertForSequenceClassification")
    together = explain(record, "transformer_attribution", query=0).scores
    for item, length in enumerate((11, 7, 4)):
        alone = {k: v[item : item + 1, :length] for k, v in inputs.items()}
        target = [int(values["input"]["target"][item])]
        one = capture(record.on_rerun.module, alone, target=target, internals=True)
        scores = explain(one, "transformer_attribution", query=0).scores
        assert_close(scores[0], together[item, :length], rtol=0, atol=1e-8)
        assert float(together[item, length:].abs().max().nan_to_num() if length < 11 else 0) < 1e-9


def test_one_row_equals_that_row_of_all(captured):
    from attnlib import explain

    record, _, _ = captured("vit", "ViTForImageClassification")
    everything = explain(record, "transformer_attribution", query="all").scores
    assert_close(explain(record, "transformer_attribution", query=(1, 2)).scores, everything[:, 7])


def test_a_function_without_a_rule_is_refused_by_name_and_place(captured):
    from attnlib import capture, explain
    from attnlib.errors import CaptureError

    record, inputs, _ = captured("vit", "ViTForImageClassification")

    class Risky(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, pixel_values):
            return self.inner(pixel_values=pixel_values).logits.exp()

    model = Risky(record.on_rerun.module)
    for method in ("transformer_attribution", "attnlrp"):
        with pytest.raises(
            CaptureError, match="'exp' in Risky, for which there is no rule; generic_relevance"
        ):
            explain(capture(model, inputs, target=1, internals=True), method)


def test_gates_groups_and_written_out_norms_hand_on_all_the_relevance_they_get(captured):
    """One unit of relevance starts at the logit; without sums with constants, one arrives at the words."""
    from attnlib import capture, explain
    from attnlib.methods.relprop_rules import RelevanceRules

    record, inputs, _ = captured("llama", "LlamaForCausalLM")
    rules = RelevanceRules(lambda weights, relevance: None)
    handle = record.on_rerun
    words = handle.start("text").requires_grad_()
    with torch.enable_grad():
        score = handle.score("text", words, rule=rules, activation=rules.activation)
        got = handle.gradient(score, words).flatten(1).sum(dim=1)
    torch.testing.assert_close(got, torch.ones_like(got), rtol=1e-4, atol=1e-5)
    scores = explain(record, "transformer_attribution", query=-1).scores
    assert scores.shape == inputs["input_ids"].shape
    assert (scores >= 0).all()
    other = capture(handle.module, inputs, target=7, internals=True)
    assert not torch.allclose(explain(other, "transformer_attribution", query=-1).scores, scores)


def test_sizes_that_do_not_fit_are_refused_before_the_work(captured):
    from attnlib import explain
    from attnlib.errors import BudgetError

    record, _, _ = captured("vit", "ViTForImageClassification")
    with pytest.raises(BudgetError, match="generic_relevance"):
        explain(record, "transformer_attribution", max_memory=1000)


@pytest.mark.parametrize("name", ["scenes-registers", "scenes-mean"])
def test_sixteen_bits_find_their_layers_again_and_are_said(name):
    from attnlib import capture, explain, load_model, load_picture

    picture = load_picture("sample:poster")
    for kind, said in (("float32", False), ("bfloat16", True)):
        model = load_model(name, dtype=kind)
        record = capture(model, [picture], target=0, internals=True)
        found = explain(record, "transformer_attribution")
        assert found.scores.isfinite().all()
        assert any(f"computed in {kind}" in note for note in found.notes) == said


def test_it_needs_a_target(captured):
    from attnlib import NeedsError, capture, explain

    record, inputs, _ = captured("vit", "ViTForImageClassification")
    without = capture(record.on_rerun.module, inputs, internals=True)
    with pytest.raises(NeedsError, match="target="):
        explain(without, "transformer_attribution")
