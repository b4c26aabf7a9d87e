"""DecompX against the reference values, the real logits and a dense oracle."""

import functools

import pytest
import torch
from torch.testing import assert_close


@pytest.fixture(scope="module")
def load(reference):
    import transformers

    @functools.cache
    def one(name, cls):
        model = getattr(transformers, cls).from_pretrained(reference.model_dir(name)).eval().double()
        values = reference.model(name)
        names = ("pixel_values", "input_ids", "attention_mask")
        inputs = {k: torch.tensor(v) for k, v in values["input"].items() if k in names}
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].double()
        return model, inputs, values

    return one


@pytest.fixture(scope="module")
def bert(load):
    from attnlib import capture

    model, inputs, values = load("bert", "BertForSequenceClassification")
    return capture(model, inputs, internals=True), values["decompx"]


def test_parts_of_every_logit_equal_the_published_ones(bert):
    from attnlib import explain

    record, expected = bert
    for label in range(3):
        got = explain(record, "decompx", label=label).scores
        assert_close(got, torch.tensor(expected["classifier"][..., label]), rtol=0, atol=1e-11)


def test_norms_of_the_vectors_equal_the_published_ones_layer_by_layer(bert):
    from attnlib import explain

    record, expected = bert
    for depth in range(4):
        through = explain(record, "decompx", of="token", query="all", layers=list(range(depth + 1))).scores
        assert_close(through, torch.tensor(expected["aggregated_norm"][depth]), rtol=1e-10, atol=1e-11)
        alone = explain(record, "decompx", of="token", query="all", layers=depth).scores
        assert_close(alone, torch.tensor(expected["encoder_norm"][depth]), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "cls"), [("bert", "BertForSequenceClassification"), ("vit", "ViTForImageClassification")]
)
def test_parts_add_up_to_the_logits_in_post_norm_and_pre_norm_models(load, name, cls):
    from attnlib import capture, explain

    model, inputs, _ = load(name, cls)
    record = capture(model, inputs, internals=True)
    for label in range(record.output.logits.shape[1]):
        scores = explain(record, "decompx", label=label).scores
        assert_close(scores.sum(dim=-1), record.output.logits[:, label], rtol=1e-8, atol=1e-9)
    largest = explain(record, "decompx").scores.sum(dim=-1)
    assert_close(largest, record.output.logits.amax(dim=-1), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("bert", "BertForSequenceClassification"),
        ("vit", "ViTForImageClassification"),
        ("dinov2_registers", "Dinov2WithRegistersForImageClassification"),
    ],
)
def test_vectors_add_up_to_the_real_states_after_every_layer(load, name, cls):
    from attnlib import capture
    from attnlib.methods.decompx import decomposed_states

    model, inputs, _ = load(name, cls)
    record = capture(model, inputs, internals=True)
    for depth in range(1, 5):
        block = record.layers[depth - 1].internals
        real = block.second_total if block.second_norm is None else block.second_norm(block.second_total)
        for item, state in enumerate(decomposed_states(record.layers[:depth], [0, 3, 7])):
            assert_close(state.sum(dim=1), real[item, [0, 3, 7]], rtol=1e-8, atol=1e-9)


def test_items_do_not_touch_one_another_and_padding_gets_nothing(load):
    from attnlib import capture, explain

    model, inputs, _ = load("bert", "BertForSequenceClassification")
    together = explain(capture(model, inputs, internals=True), "decompx", label=1).scores
    for item, length in enumerate((11, 7, 4)):
        alone = {k: v[item : item + 1, :length] for k, v in inputs.items()}
        scores = explain(capture(model, alone, internals=True), "decompx", label=1).scores
        assert_close(scores[0], together[item, :length], rtol=1e-8, atol=1e-10)
        assert (together[item, length:].abs() < 1e-12).all()


def test_a_head_that_reads_two_tokens_is_refused_by_name(load):
    from attnlib import NeedsError, capture, explain

    model, inputs, _ = load("deit", "DeiTForImageClassificationWithTeacher")
    record = capture(model, inputs, internals=True)
    with pytest.raises(NeedsError, match="of='token'"):
        explain(record, "decompx")
    assert explain(record, "decompx", of="token").scores.shape == (2, 18)


def test_a_feed_forward_of_another_kind_is_refused_by_name(load):
    from attnlib import NeedsError, capture, explain

    model, inputs, _ = load("gpt2", "GPT2LMHeadModel")
    record = capture(model, inputs, internals=True)
    with pytest.raises(NeedsError, match=r"transformer\.h\.0\.attn lacks a part"):
        explain(record, "decompx", of="token", query=-1)


def test_sizes_that_do_not_fit_are_refused_before_the_work(load, monkeypatch):
    from attnlib import capture, explain
    from attnlib.errors import BudgetError
    from attnlib.methods import decompx

    model, inputs, _ = load("bert", "BertForSequenceClassification")
    record = capture(model, inputs, internals=True)
    monkeypatch.setattr(decompx, "_LARGEST", 11 * 11 * 32 * 8)
    with pytest.raises(BudgetError, match="globenc or alti"):
        explain(record, "decompx")
