"""AttnLRP and CP-LRP against the reference values, conservation, give-back and refusals."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close


class KeepFloat64(TorchFunctionMode):
    """Leave out the conversions to float32 that LLaMA does inside, as the reference values do."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "float" and args[0].dtype == torch.float64:
            return args[0]
        if name == "to" and torch.float32 in args[1:] and args[0].dtype == torch.float64:
            return args[0]
        if (
            kwargs.get("dtype") is torch.float32
            and name in ("softmax", "to")
            and args[0].dtype == torch.float64
        ):
            kwargs = {**kwargs, "dtype": torch.float64}
        return func(*args, **kwargs)


def record_of(model, inputs, values):
    from attnlib import capture

    return capture(model, inputs, target=values["input"]["target"].tolist(), internals=True)


@pytest.mark.parametrize(
    ("name", "cls", "method"),
    [
        ("gpt2", "GPT2LMHeadModel", "attnlrp"),
        ("gpt2", "GPT2LMHeadModel", "cp_lrp"),
        ("llama", "LlamaForCausalLM", "attnlrp"),
        ("llama", "LlamaForCausalLM", "cp_lrp"),
        ("bert", "BertForSequenceClassification", "attnlrp"),
    ],
)
def test_relevance_equals_the_published_one(load, name, cls, method):
    from attnlib import explain

    model, inputs, values = load(name, cls)
    expected = torch.tensor(values[method]["relevance"])
    with KeepFloat64():
        got = explain(record_of(model, inputs, values), method).scores
    assert_close(got, expected, rtol=0, atol=1e-8 * float(expected.abs().max()))
    single, inputs, _ = load(name, cls, torch.float32)
    got = explain(record_of(single, inputs, values), method).scores
    assert_close(got.double(), expected, rtol=1e-4, atol=1e-6)


def test_cp_lrp_without_biases_conserves_the_logit(load):
    from attnlib import explain

    model, inputs, values = load("llama", "LlamaForCausalLM")
    with KeepFloat64():
        record = record_of(model, inputs, values)
        scores = explain(record, "cp_lrp").scores
    logits = record.output.logits[range(len(scores)), -1, values["input"]["target"]]
    assert_close(scores.sum(dim=-1), logits.detach(), rtol=1e-8, atol=1e-9)
    assert "under 0.1 % of it" in explain(record, "cp_lrp").notes[0]


class Attentive(nn.Module):
    """A hand-written model with an activation, a gate and a normalisation that no library provides."""

    def __init__(self, last=torch.tanh):
        super().__init__()
        self.embedding = nn.Embedding(17, 10)
        self.query, self.key, self.value, self.out = (nn.Linear(10, 10) for _ in range(4))
        self.gate, self.up, self.down = nn.Linear(10, 14), nn.Linear(10, 14), nn.Linear(14, 10)
        self.head = nn.Linear(10, 5)
        self.last = last

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        q, k, v = (f(x).unflatten(-1, (2, 5)).transpose(1, 2) for f in (self.query, self.key, self.value))
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.var(-1, keepdim=True) + 1e-5)
        x = x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return self.last(self.head(x[:, 0]))


def explicit(model, ids, target, *, conservative):
    """Relevance by the rules written out once more, with detached tensors instead of changed functions."""
    half = (lambda x: x) if conservative else (lambda x: x / 2 + x.detach() / 2)
    slope = lambda x, y: x * (y / (x + 1e-10)).detach()  # noqa: E731
    start = model.embedding(ids).detach().requires_grad_()
    q, k, v = (f(start).unflatten(-1, (2, 5)).transpose(1, 2) for f in (model.query, model.key, model.value))
    weights = torch.softmax(half(q @ k.transpose(-1, -2)) / 5**0.5, dim=-1)
    weights = weights.detach() if conservative else weights
    x = start + model.out(half(weights @ v).transpose(1, 2).flatten(2))
    centred = x - x.mean(-1, keepdim=True)
    x = centred * torch.rsqrt(x.var(-1, keepdim=True) + 1e-5).detach()
    gate = slope(model.gate(x), nn.functional.silu(model.gate(x)))
    gate = gate.detach() if conservative else gate
    x = x + model.down(half(gate * model.up(x)))
    logits = model.head(x[:, 0])
    score = slope(logits, torch.tanh(logits))[range(len(ids)), target]
    (gradient,) = torch.autograd.grad(score.sum(), [start])
    return (start * gradient).sum(dim=-1).detach()


@pytest.mark.parametrize("method", ["attnlrp", "cp_lrp"])
def test_a_hand_written_model_agrees_with_the_rules_written_out(method):
    from attnlib import capture, explain

    torch.manual_seed(3)
    model = Attentive().double().eval()
    ids = torch.randint(0, 17, (3, 7))
    target = [4, 0, 2]
    got = explain(capture(model, {"input_ids": ids}, target=target), method).scores
    expected = explicit(model, ids, target, conservative=method == "cp_lrp")
    assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_a_function_without_a_rule_is_refused_by_name():
    from attnlib import capture, explain
    from attnlib.errors import CaptureError

    torch.manual_seed(5)
    model = Attentive(last=torch.exp).double().eval()
    record = capture(model, {"input_ids": torch.randint(0, 17, (2, 7))}, target=1)
    with pytest.raises(CaptureError, match="'exp'"):
        explain(record, "attnlrp")
    assert not model.embedding.weight.grad
    assert model.head.weight.requires_grad


def test_items_do_not_touch_one_another(load):
    from attnlib import capture, explain

    model, inputs, values = load("bert", "BertForSequenceClassification")
    target = values["input"]["target"].tolist()
    for method in ("attnlrp", "cp_lrp"):
        together = explain(capture(model, inputs, target=target), method).scores
        for item, length in enumerate((11, 7, 4)):
            alone = {k: v[item : item + 1, :length] for k, v in inputs.items()}
            scores = explain(capture(model, alone, target=[target[item]]), method).scores
            assert_close(scores[0], together[item, :length], rtol=1e-8, atol=1e-12)
            assert float(together[item, length:].abs().sum()) == 0


def test_pixels_are_explained_by_patch(load):
    from attnlib import explain

    model, inputs, values = load("vit", "ViTForImageClassification")
    relevance = explain(record_of(model, inputs, values), "cp_lrp")
    assert relevance.heatmap().shape == (2, 4, 4)
    assert float(relevance.scores[:, 0].abs().max()) == 0
    assert relevance.heatmap().abs().amin() > 0


def test_a_query_or_a_missing_target_is_refused(load):
    from attnlib import NeedsError, capture, explain
    from attnlib.errors import InputError

    model, inputs, values = load("gpt2", "GPT2LMHeadModel")
    with pytest.raises(InputError, match="leave query out"):
        explain(record_of(model, inputs, values), "attnlrp", query=0)
    record = capture(model, inputs)
    with pytest.raises(NeedsError, match="target="):
        explain(record, "attnlrp")
    named_here = explain(record, "attnlrp", target=values["input"]["target"].tolist()).scores
    assert_close(named_here, explain(record_of(model, inputs, values), "attnlrp").scores)


def test_the_cards_carry_the_licence_notice():
    from attnlib import METHODS

    for name in ("attnlrp", "cp_lrp"):
        assert "personal and scientific purposes" in METHODS[name].to_text()
