"""Maps of captured models against eager attention and autograd, over families, sizes, seeds and batches."""

import copy

import pytest
import torch
from torch.testing import assert_close

SMALL = {"hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 20}


def pixels(batch, height, width, seed):
    made = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return {"pixel_values": made}


def family(name, seed):
    """Return a function that builds the model, its inputs and one target an item."""
    import transformers as tf

    words = {"input_ids": torch.randint(3, 50, (3, 7), generator=torch.Generator().manual_seed(seed))}
    if name == "dinov2, rectangular":
        config = tf.Dinov2Config(
            hidden_size=24, num_hidden_layers=3, num_attention_heads=2, mlp_ratio=2, image_size=20, patch_size=4,
            num_labels=5,
        )  # fmt: skip
        return tf.Dinov2ForImageClassification, config, pixels(3, 12, 28, seed), [0, 4, 2]
    if name == "vit, one item":
        config = tf.ViTConfig(**SMALL, num_attention_heads=3, image_size=28, patch_size=4, num_labels=3)
        return tf.ViTForImageClassification, config, pixels(1, 28, 28, seed), [2]
    if name == "bert, padded":
        mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
        config = tf.BertConfig(**SMALL, num_attention_heads=4, vocab_size=50, num_labels=3)
        return tf.BertForSequenceClassification, config, {**words, "attention_mask": mask}, [1, 0, 2]
    config = tf.LlamaConfig(**SMALL, num_attention_heads=6, num_key_value_heads=2, vocab_size=50)
    return tf.LlamaForCausalLM, config, words, [11, 3, 40]


FAMILIES = ("dinov2, rectangular", "vit, one item", "bert, padded", "llama, grouped")


@pytest.fixture(scope="module", params=[(name, seed) for seed, name in enumerate(FAMILIES, start=3)])
def case(request):
    """A record of the model as loaded; attention and gradients of the same model, eager."""
    from attnlib import capture

    build, config, inputs, targets = family(*request.param)
    torch.manual_seed(request.param[1])
    model = build(config).eval()
    record = capture(model, inputs, target=targets)
    config = copy.deepcopy(config)  # the captured model goes on with its own
    config._attn_implementation = "eager"
    eager = build(config).eval()
    eager.load_state_dict(model.state_dict())
    out = eager(**inputs, output_attentions=True)
    logits = out.logits if out.logits.dim() == 2 else out.logits[:, -1]
    score = logits[range(len(targets)), targets].sum()
    slopes = torch.autograd.grad(score, out.attentions)
    return record, [one.detach() for one in out.attentions], slopes


def through(layers, row, start=None):
    """Multiply the matrices from the last to the first for one row."""
    vector = torch.zeros(len(layers[0]), 1, layers[0].shape[-1])
    vector[:, 0, row] = 1
    for layer in reversed(layers):
        vector = vector @ layer
    return vector[:, 0]


def agree(got, expected):
    assert_close(got, expected, rtol=1e-4, atol=1e-7)


def test_weights_and_gradients(case):
    record, weights, slopes = case
    for layer, weight, slope in zip(record.layers, weights, slopes, strict=True):
        real = layer.weights().sum(dim=-1, keepdim=True) > 0
        agree(layer.weights(), weight * real)
        assert_close(layer.gradients() * weight, slope * weight, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("row", [0, -1])
def test_generic_relevance(case, row):
    from attnlib import explain

    record, weights, slopes = case
    count = weights[0].shape[-1]
    if "attention_mask" in record.on_rerun.kwargs and row == -1:
        row = 2  # the last token of every item that is not padding
    fused = [(w * g).clamp(min=0).mean(dim=1) for w, g in zip(weights, slopes, strict=True)]
    expected = through([torch.eye(count) + one for one in fused], row)
    agree(explain(record, "generic_relevance", query=row).scores, expected)


def test_gradient_rollout_and_rollout(case):
    from attnlib import explain

    record, weights, slopes = case
    eye = torch.eye(weights[0].shape[-1])
    mixed = [(w.mean(dim=1) + eye) / 2 for w in weights]
    agree(explain(record, "rollout", query=1).scores, through(mixed, 1))
    fused = [(w * g).mean(dim=1).clamp(min=0) + eye for w, g in zip(weights, slopes, strict=True)]
    expected = through([one / one.sum(dim=-1, keepdim=True) for one in fused], 1)
    agree(explain(record, "gradient_rollout", query=1).scores, expected)


def test_gradients_are_those_of_finite_differences(case):
    """Raise one attention output by a little: the score changes as the kept gradient says."""
    record = case[0]
    layer = record.layers[1]
    slope = layer.source.output_gradient
    assert slope is not None
    handle = record.on_rerun
    calls = []

    def rule(func, args, kwargs):
        out = func(*args, **kwargs)
        if getattr(func, "__name__", "") == "scaled_dot_product_attention":
            calls.append(1)
            if len(calls) == 2:
                return out + step * direction
        return out

    direction = torch.randn(slope.shape, generator=torch.Generator().manual_seed(2))
    scores = []
    for sign in (1, -1):
        step, calls = sign * 1e-2, []
        scores.append(handle.score(record.streams[0], rule=rule).detach().double())
    got = (scores[0] - scores[1]) / 2e-2
    expected = (slope.double() * direction).flatten(1).sum(dim=1)
    assert_close(got, expected, rtol=1e-2, atol=2e-4)


@pytest.mark.parametrize(("tokens", "depth", "seed"), [(3, 2, 1), (5, 3, 2), (4, 4, 3)])
def test_flow_is_the_maximum_flow_of_networkx(tokens, depth, seed):
    """The graph is built here, edge by edge; every query, every token, every item."""
    import networkx

    from attnlib import AttentionRecord, explain

    generator = torch.Generator().manual_seed(seed)
    weights = [
        torch.rand(2, 3, tokens, tokens, generator=generator).double().softmax(-1) for _ in range(depth)
    ]
    found = explain(AttentionRecord.from_weights(weights), "flow", query="all", residual_weight=0.3).scores
    for item in range(2):
        graph = networkx.DiGraph()
        for level, layer in enumerate(weights):
            matrix = 0.7 * layer[item].mean(dim=0) + 0.3 * torch.eye(tokens, dtype=torch.float64)
            for above in range(tokens):
                for below in range(tokens):
                    graph.add_edge((level + 1, above), (level, below), capacity=float(matrix[above, below]))
        for query in range(tokens):
            for key in range(tokens):
                # the query gives out one unit, as a source that feeds it does
                graph.add_edge("source", (depth, query), capacity=1.0)
                value = networkx.maximum_flow_value(graph, "source", (0, key))
                graph.remove_edge("source", (depth, query))
                assert float(found[item, query, key]) == pytest.approx(value, rel=1e-9)
