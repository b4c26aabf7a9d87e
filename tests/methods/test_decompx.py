"""DecompX against the reference values, the real logits and a dense oracle."""

import pytest
import torch
from torch.testing import assert_close


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
    from attnlib.methods.decompx_blocks import decomposed_states

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


HEADS = {
    "deit": "DeiTForImageClassificationWithTeacher",  # two tokens, two heads, their mean
    "dinov2_registers": "Dinov2WithRegistersForImageClassification",  # class token and mean of the patches
    "gpt2": "GPT2LMHeadModel",  # an activation written out in five functions
    "llama": "LlamaForCausalLM",  # gates, root-mean-square norms, grouped queries
}


@pytest.mark.parametrize("name", HEADS)
def test_parts_add_up_to_the_score_for_other_heads_and_feed_forwards(load, name):
    from attnlib import capture, explain

    model, inputs, _ = load(name, HEADS[name])
    scores = []
    for label in (1, 2):
        record = capture(model, inputs, target=label, internals=True)
        logits = record.output.logits if record.output.logits.dim() == 2 else record.output.logits[:, -1]
        scores.append(explain(record, "decompx").scores)
        assert_close(scores[-1].sum(dim=-1), logits[:, label].detach(), rtol=1e-6, atol=1e-7)
    assert float((scores[0] - scores[1]).abs().max()) > 1e-3 * float(scores[0].abs().max())


def test_any_function_of_the_output_is_explained(load):
    from attnlib import capture, explain

    model, inputs, _ = load("vit", "ViTForImageClassification")

    def distance(output):
        return torch.nn.functional.normalize(output.logits, dim=-1)[:, 0] - output.logits[:, 2] / 3

    found = explain(capture(model, inputs, target=distance, internals=True), "decompx")
    with torch.no_grad():
        assert_close(found.scores.sum(dim=-1), distance(model(**inputs)), rtol=1e-7, atol=1e-8)
    by_parts = [explain(capture(model, inputs, internals=True), "decompx", label=i).scores for i in range(3)]
    assert not torch.allclose(found.scores, by_parts[0])


def test_a_label_is_named_and_the_target_of_the_capture_is_explained(load):
    from attnlib import capture, explain

    model, inputs, _ = load("vit", "ViTForImageClassification")
    name = model.config.id2label[2]
    by_name = explain(capture(model, inputs, target=name, internals=True), "decompx")
    by_index = explain(capture(model, inputs, internals=True), "decompx", label=2)
    assert torch.equal(by_name.scores, by_index.scores)
    assert by_name.options["label"] == name


@pytest.mark.parametrize(("name", "cls"), [("gpt2", HEADS["gpt2"]), ("llama", HEADS["llama"])])
def test_states_followed_function_by_function_add_up_to_the_real_ones(load, name, cls):
    from attnlib import capture, explain

    model, inputs, _ = load(name, cls)
    record = capture(model, inputs, internals=True)
    found = explain(record, "decompx", of="token", query=-1)
    assert any("function by function" in note for note in found.notes)
    assert found.scores.shape == inputs["input_ids"].shape
    first = explain(record, "decompx", of="token", query=0).scores
    assert (first[:, 1:].abs() < 1e-9).all()  # a causal model's first token is made of itself only


def test_following_functions_gives_what_following_blocks_gives(load):
    """The same numbers but for biases of the attention, which are then shared out where they are added."""
    import copy
    from dataclasses import replace

    from attnlib import capture, explain

    for name, cls in (("bert", "BertForSequenceClassification"), ("vit", "ViTForImageClassification")):
        model, inputs, _ = load(name, cls)
        model = copy.deepcopy(model)
        for parameter, value in model.named_parameters():
            if "attention" in parameter and parameter.endswith("bias") and "LayerNorm" not in parameter:
                torch.nn.init.zeros_(value)
        record = capture(model, inputs, internals=True)
        expected = explain(record, "decompx", label=1).scores
        states = explain(record, "decompx", of="token", query="all").scores
        for layer in record.layers:
            layer.internals = replace(layer.internals, feed_forward=None, problem="hidden by the test")
        assert_close(explain(record, "decompx", label=1).scores, expected, rtol=1e-8, atol=1e-10)
        again = explain(record, "decompx", of="token", query="all").scores
        seen = inputs["attention_mask"][:, :, None] == 1 if "attention_mask" in inputs else again > -1
        assert_close(again * seen, states * seen, rtol=1e-8, atol=1e-9)


def test_a_function_without_a_rule_is_named_when_it_matters(load):
    from attnlib import capture, explain
    from attnlib.errors import CaptureError

    model, inputs, _ = load("vit", "ViTForImageClassification")
    record = capture(model, inputs, target=lambda o: o.logits.exp()[:, 0], internals=True)
    with pytest.raises(CaptureError, match="exp"):
        explain(record, "decompx")


def test_parts_that_are_not_finite_are_told_as_such(load):
    from attnlib import capture, explain
    from attnlib.errors import CaptureError

    model, inputs, _ = load("vit", "ViTForImageClassification")
    record = capture(model, inputs, target=lambda o: o.logits[:, 0] * 1e300 * 1e300, internals=True)
    with pytest.raises(CaptureError, match="not finite"):
        explain(record, "decompx")


def test_sizes_that_do_not_fit_are_refused_before_the_work(load):
    from attnlib import capture, explain
    from attnlib.errors import BudgetError

    model, inputs, _ = load("bert", "BertForSequenceClassification")
    record = capture(model, inputs, internals=True)
    with pytest.raises(BudgetError, match="globenc or alti"):
        explain(record, "decompx", max_memory=11 * 11 * 32 * 8)


def test_the_first_run_of_a_process_warns_of_nothing():
    """Torch loads its rules for derivatives along a direction when they are first asked for."""
    import subprocess
    import sys

    code = """
import torch, transformers
from attnlib import capture, explain
sizes = dict(hidden_size=12, intermediate_size=7, num_hidden_layers=1, num_attention_heads=3, vocab_size=20)
model = transformers.BertModel(transformers.BertConfig(**sizes)).eval()
ids = {"input_ids": torch.arange(5)[None]}
record = capture(model, ids, target=lambda o: o.last_hidden_state[:, 0].norm(dim=-1), internals=True)
assert explain(record, "decompx").scores.isfinite().all()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "FutureWarning" not in done.stderr
