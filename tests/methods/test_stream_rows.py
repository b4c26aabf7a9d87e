"""Relevance from one token of a decoder to its encoder: the published equations, without their matrices."""

import numpy as np
import pytest
import torch

SIZES = {"encoder": 11, "decoder": 5}
ORDERS = (
    "encoder encoder decoder cross decoder cross decoder",
    "decoder cross encoder decoder cross",
    "cross encoder cross",
)


@pytest.fixture(params=ORDERS)
def calls(request):
    """[(stream, other or None, weights, gradients)]; in item 1 a decoder row gets nothing from others."""
    g = torch.Generator().manual_seed(len(request.param))
    made = []
    for word in request.param.split():
        stream, other = ("decoder", "encoder") if word == "cross" else (word, None)
        shape = (3, 2, SIZES[stream], SIZES[other or stream])
        weights = torch.rand(shape, generator=g, dtype=torch.float64).softmax(-1)
        slopes = torch.randn(shape, generator=g, dtype=torch.float64)
        if word == "decoder":
            slopes[1, :, 2] = -1
        made.append((stream, other, weights, slopes))
    return made


def record_of(calls):
    from attnlib import AttentionRecord
    from attnlib.record import GivenCall

    return AttentionRecord.from_streams(
        [GivenCall(stream, weights, slopes, other) for stream, other, weights, slopes in calls]
    )


def normalised(relevance):
    received = relevance - np.eye(len(relevance))
    total = received.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return received / total + np.eye(len(relevance)), bool((total == 0).any())


def written_out(calls, item, *, normalise=True, own_factors=True, drop=False):
    """Equations 5 to 10, matrix by matrix, for one item."""
    sizes = SIZES
    own = {name: np.eye(size) for name, size in sizes.items()}
    between = np.zeros((sizes["decoder"], sizes["encoder"]))
    for stream, other, weights, slopes in calls:
        cam = np.maximum((weights[item] * slopes[item]).numpy(), 0).mean(axis=0)
        if other is None:
            own[stream] = own[stream] + cam @ own[stream]
            if stream == "decoder":
                between = between + cam @ between
            continue
        left, right = own["decoder"], own["encoder"]
        if normalise and own_factors:
            (left, first), (right, second) = normalised(left), normalised(right)
            left, right = np.nan_to_num(left), np.nan_to_num(right)
            np.fill_diagonal(left, np.where(np.diag(left) == 0, 1, np.diag(left)))
            np.fill_diagonal(right, np.where(np.diag(right) == 0, 1, np.diag(right)))
            if drop and (first or second):
                continue
        between = between + (left.T @ cam @ right if own_factors else cam)
    return between, own


RULES = {
    "published": ({}, {}),
    "not normalised": ({"normalise": False}, {"normalise": False}),
    "as the code drops calls": ({"variant": "chefer-detr"}, {"drop": True}),
    "plain rule 10": ({"variant": "rule10-plain"}, {"own_factors": False}),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_row_and_all_rows_are_those_of_the_equations_written_out(calls, rule):
    from attnlib import explain

    record, (options, rules) = record_of(calls), RULES[rule]
    every = explain(record, "generic_relevance", query="all", **options).scores
    for token in range(SIZES["decoder"]):
        row = explain(record, "generic_relevance", query=token, **options).scores
        for item in range(3):
            wanted = torch.as_tensor(written_out(calls, item, **rules)[0])
            torch.testing.assert_close(row[item], wanted[token], rtol=1e-11, atol=1e-14)
            torch.testing.assert_close(every[item], wanted, rtol=1e-11, atol=1e-14)
    mean = explain(record, "generic_relevance", query=[0, 3], **options).scores
    torch.testing.assert_close(mean, every[:, [0, 3]].mean(dim=1), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("stream", ["encoder", "decoder"])
def test_within_a_stream_a_row_is_that_of_its_own_product(calls, stream):
    from attnlib import explain

    ask = {"query_stream": stream, "key_stream": stream}
    found = explain(record_of(calls), "generic_relevance", query=2, **ask)
    for item in range(3):
        wanted = torch.as_tensor(written_out(calls, item)[1][stream][2])
        torch.testing.assert_close(found.scores[item], wanted, rtol=1e-11, atol=1e-14)


def test_no_matrix_over_the_tokens_is_formed_or_asked_for(calls, monkeypatch):
    from attnlib import explain
    from attnlib.methods import engine
    from attnlib.record import LayerAttention

    record = record_of(calls)
    wanted = explain(record, "generic_relevance", query=1).scores
    monkeypatch.setattr(engine, "BLOCK_ELEMENTS", 3 * 2 * 11 * 2)
    asked = []
    plain = LayerAttention.weights

    def watched(self, *, heads=None, queries=None):
        found = plain(self, heads=heads, queries=queries)
        asked.append(found.shape[2])
        return found

    monkeypatch.setattr(LayerAttention, "weights", watched)
    found = explain(record, "generic_relevance", query=1, max_memory=1).scores
    torch.testing.assert_close(found, wanted)
    assert max(asked) <= 4 < 5


@pytest.mark.parametrize("query", [None, 0, 3])
def test_a_captured_decoder_gives_the_rows_of_its_whole_matrix(query):
    from transformers import BartConfig, BartForConditionalGeneration

    from attnlib import capture, explain

    torch.manual_seed(4)
    config = BartConfig(
        d_model=24, encoder_layers=2, decoder_layers=3, encoder_attention_heads=3, decoder_attention_heads=2,
        encoder_ffn_dim=20, decoder_ffn_dim=20, vocab_size=50,
    )  # fmt: skip
    ids = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(5))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids[:, :4]}
    record = capture(BartForConditionalGeneration(config).eval(), inputs, target=[7, 9])
    row = explain(record, "generic_relevance", query=query).scores
    every = explain(record, "generic_relevance", query="all").scores[:, 3 if query is None else query]
    assert float(row.abs().sum()) > 0
    torch.testing.assert_close(row, every, rtol=1e-4, atol=1e-7)
    assert (row[1, 4:] == 0).all()


def test_a_start_layer_on_two_streams_is_refused_with_what_to_do():
    from attnlib import explain
    from attnlib.errors import InputError

    g = torch.Generator().manual_seed(5)
    made = []
    for stream, other in (("encoder", None), ("decoder", None), ("decoder", "encoder")):
        shape = (2, 3, SIZES[stream], SIZES[other or stream])
        made.append(
            (stream, other, torch.rand(shape, generator=g).softmax(-1), torch.rand(shape, generator=g))
        )
    with pytest.raises(InputError, match=r"streams encoder and decoder: leave start_layer out.*layers=\["):
        explain(record_of(made), "generic_relevance", start_layer=1)
