"""The engine and the queries: hand-worked cases, properties, a slow oracle, refusals."""

import pytest
import torch


@pytest.fixture
def stack():
    torch.manual_seed(11)
    return [torch.rand(2, 3, 8, 8, dtype=torch.float64).softmax(-1) for _ in range(5)]


@pytest.fixture
def layout():
    from attnlib import TokenLayout

    return TokenLayout((2, 3), 4, ("class", "distillation"), readout=[0, 1])


@pytest.fixture
def record(stack, layout):
    from attnlib import AttentionRecord

    torch.manual_seed(12)
    slopes = [torch.randn_like(one) for one in stack]
    return AttentionRecord.from_weights(stack, gradients=slopes, layout=layout)


def slow_rollout(stack, weight=0.5):
    size = stack[0].shape[-1]
    product = torch.eye(size, dtype=torch.float64)
    for one in stack:
        mixed = (1 - weight) * one.mean(1) + weight * torch.eye(size, dtype=torch.float64)
        product = (mixed / mixed.sum(-1, keepdim=True)) @ product
    return product


def test_two_tokens_and_two_layers_by_hand():
    from attnlib import AttentionRecord, explain

    first = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]], dtype=torch.float64)
    second = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]], dtype=torch.float64)
    record = AttentionRecord.from_weights([first, second])
    # layer 1 mixes to [[1, 0], [1/4, 3/4]], layer 2 to [[1/2, 1/2], [1/2, 1/2]]
    assert explain(record, "rollout", query=0).scores.tolist() == [[0.625, 0.375]]
    assert explain(record, "rollout", query=0).identity.tolist() == [[0.25, 0.0]]
    slopes = [torch.tensor([[[[2.0, 1.0], [-4.0, 2.0]]]], dtype=torch.float64)] * 2
    signed = AttentionRecord.from_weights([first, second], gradients=slopes)
    # positive parts [[2, 0], [0, 1]] and [[0, 1], [0, 0]]; R = I + A1 = diag(3, 2); R + A2 R
    assert explain(signed, "generic_relevance", query="all").scores.tolist() == [[[3.0, 2.0], [0.0, 2.0]]]


def test_every_kind_of_query_is_rows_of_the_whole_rollout(record, stack):
    from attnlib import explain

    whole = slow_rollout(stack)
    torch.testing.assert_close(explain(record, query="all").scores, whole, rtol=1e-12, atol=1e-14)
    rows = {
        "head": (None, whole[:, :2].mean(1), "mean of class, distillation"),
        "name": ("distillation", whole[:, 1], "distillation"),
        "token": (4, whole[:, 4], "patch (0, 2)"),
        "last": (-1, whole[:, 7], "patch (1, 2)"),
        "patch": ((1, 0), whole[:, 5], "patch (1, 0)"),
        "mean": ("mean", whole[:, 2:].mean(1), "mean of the patches"),
        "list": ([0, (1, 0)], whole[:, [0, 5]].mean(1), "mean of class, patch (1, 0)"),
    }
    for query, wanted, words in rows.values():
        found = explain(record, query=query)
        torch.testing.assert_close(found.scores, wanted, rtol=1e-12, atol=1e-14)
        assert found.query == words
    each = torch.stack([whole[0, 3], whole[1, 6]])
    for per_item in (torch.tensor([3, 6]), [[3], [6]], torch.tensor([3, 6]).numpy()):
        torch.testing.assert_close(explain(record, query=per_item).scores, each, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (8, "outside the 8"), ((2, 0), "outside the grid"), ([], "empty"), ("clas", "'class'"), (1.5, "cannot use"),
        ([3, 3], "twice"), (True, "token index"), ((0, 1, 2), "row, column"), (torch.tensor([1, 2, 3]), "batch of 2"),
    ],
)  # fmt: skip
def test_a_query_that_is_not_there_is_refused_with_what_to_do(record, query, words):
    from attnlib import explain

    with pytest.raises(ValueError, match=words):
        explain(record, query=query)


def test_names_that_do_not_exist_name_the_near_ones(record):
    from attnlib import METHODS, explain

    with pytest.raises(ValueError, match="'rollout'"):
        explain(record, "rolout")
    with pytest.raises(KeyError, match="'generic_relevance'"):
        METHODS["generic_relevanc"]
    assert METHODS.get("nothing like it") is None
    assert "nothing like it" not in METHODS
    with pytest.raises(ValueError, match="'residual_weight'"):
        explain(record, "rollout", residual_wight=0.5)
    for option, value in {
        "residual_weight": 1.5, "head_fusion": "median", "discard_ratio": "much", "heads": [], "start_layer": 9,
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=option):
            explain(record, "rollout", **{option: value})
    with pytest.raises(ValueError, match="empty"):
        explain(record, "rollout", layers=[])
    with pytest.raises(ValueError, match="no layer 7"):
        explain(record, "rollout", layers=[7])


def test_residual_weight_goes_from_no_attention_to_attention_alone(record, stack):
    from attnlib import explain

    for weight in (0.0, 0.3, 1.0):
        found = explain(record, query="all", residual_weight=weight)
        torch.testing.assert_close(found.scores, slow_rollout(stack, weight), rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(
            found.identity, weight**5 * torch.eye(8, dtype=torch.float64).expand(2, -1, -1)
        )


def test_layers_and_start_layer_leave_layers_out(record, stack):
    from attnlib import explain

    torch.testing.assert_close(
        explain(record, query="all", layers=[1, -1]).scores, slow_rollout([stack[1], stack[4]])
    )
    for start in (2, -3):
        late = explain(record, query="all", start_layer=start).scores
        torch.testing.assert_close(late, slow_rollout(stack[2:]))
    heads = explain(record, query="all", heads=[2, 0]).scores
    torch.testing.assert_close(heads, slow_rollout([one[:, [2, 0]] for one in stack]))


@pytest.mark.parametrize("name", ["rollout", "generic_relevance", "gradient_rollout"])
def test_identity_attention_gives_the_identity_and_rows_keep_their_sum(name, layout):
    from attnlib import AttentionRecord, explain

    eye = torch.eye(8, dtype=torch.float64).expand(1, 3, 8, 8)
    record = AttentionRecord.from_weights([eye] * 4, gradients=[torch.zeros_like(eye)] * 4, layout=layout)
    found = explain(record, name, query="all")
    torch.testing.assert_close(found.scores[0], torch.eye(8, dtype=torch.float64))


def test_permuting_items_heads_and_tokens_permutes_the_result(record, stack, layout):
    from attnlib import AttentionRecord, explain

    slopes = [layer.gradients() for layer in record.layers]
    order = torch.tensor([3, 0, 7, 1, 5, 2, 6, 4])

    def again(change):
        return AttentionRecord.from_weights([change(s) for s in stack], gradients=[change(s) for s in slopes])

    for name in (
        "rollout",
        "generic_relevance",
        "gradient_rollout",
        "attention_gradient",
        "attention_grad_cam",
    ):
        base = explain(record, name, query="all").scores
        torch.testing.assert_close(
            explain(again(lambda s: s.flip(0)), name, query="all").scores, base.flip(0)
        )
        torch.testing.assert_close(explain(again(lambda s: s.flip(1)), name, query="all").scores, base)
        mixed = explain(again(lambda s: s[:, :, order][..., order]), name, query="all").scores
        torch.testing.assert_close(mixed, base[:, order][..., order])


def test_rows_that_are_zero_over_zero_count_as_zero_and_are_said(stack, layout):
    from attnlib import AttentionRecord, explain

    empty = [one.clone() for one in stack]
    empty[2][0, :, 3] = 0
    record = AttentionRecord.from_weights(empty, layout=layout)
    found = explain(record, query="all", residual_weight=0.0)
    assert found.scores.isfinite().all()
    assert "0/0" in " ".join(found.notes)
    assert "0/0" not in " ".join(explain(record, query="all").notes)


def test_padding_is_kept_out_of_means_and_refused_as_a_query(record):
    from dataclasses import replace

    from attnlib import explain

    seen = torch.ones(2, 8, dtype=torch.bool)
    seen[1, 5:] = False
    padded = replace(record, seen={"tokens": seen})
    whole = explain(record, query="all").scores
    mean = explain(padded, query="mean")
    torch.testing.assert_close(mean.scores[1], whole[1, 2:5].mean(0))
    assert mean.seen is seen
    with pytest.raises(ValueError, match="padding"):
        explain(padded, query=6)


def test_one_start_vector_computes_only_the_rows_it_needs(record, monkeypatch):
    from attnlib import explain
    from attnlib.methods import engine
    from attnlib.record import LayerAttention

    asked = []
    plain = LayerAttention.weights

    def watched(self, *, heads=None, queries=None):
        if heads is None:
            asked.append((self.index, queries))
        return plain(self, heads=heads, queries=queries)

    monkeypatch.setattr(LayerAttention, "weights", watched)
    explain(record, query=3)
    assert [rows for index, rows in asked if index == 4] == [[3]]
    asked.clear()
    monkeypatch.setattr(engine, "BLOCK_ELEMENTS", 2 * 3 * 8 * 3)
    small = explain(record, query=3).scores
    assert [rows for index, rows in asked if index == 0] == [slice(0, 3), slice(3, 6), slice(6, 8)]
    monkeypatch.undo()
    torch.testing.assert_close(small, explain(record, query=3).scores)


def test_nothing_in_the_record_is_changed_by_any_method(record):
    from attnlib import METHODS, NeedsError, explain

    before = [(layer.weights().clone(), layer.gradients().clone()) for layer in record.layers]
    for name in METHODS:
        try:
            explain(record, name)
        except (NeedsError, ValueError):
            continue
    for layer, (weights, slopes) in zip(record.layers, before, strict=True):
        assert torch.equal(layer.weights(), weights)
        assert torch.equal(layer.gradients(), slopes)


def test_discarding_is_done_item_by_item(record):
    from attnlib import AttentionRecord, explain

    both = explain(record, query="all", discard_ratio=0.6).scores
    for item in range(2):
        alone = AttentionRecord.from_weights([one.weights()[item : item + 1] for one in record.layers])
        torch.testing.assert_close(explain(alone, query="all", discard_ratio=0.6).scores[0], both[item])


def test_layers_that_do_not_fit_are_refused_by_name():
    from attnlib import AttentionRecord, explain

    record = AttentionRecord.from_weights([torch.rand(1, 2, 3, 5), torch.rand(1, 2, 3, 5)])
    with pytest.raises(ValueError, match=r"self|square"):
        explain(record, query=0)
    assert explain(record, "raw", query=2).scores.shape == (1, 5)


def test_a_map_that_could_mislead_says_so():
    from attnlib import AttentionRecord, TokenLayout, explain

    layout = TokenLayout((11, 13), 4, ("class",), readout=[0])
    even = torch.full((2, 2, 144, 144), 1 / 144)
    peaked = even * 0.5
    peaked[1, :, :, 17] += 0.5
    record = AttentionRecord.from_weights([peaked] * 3, layout=layout)
    notes = " ".join(explain(record).notes)
    assert "nearly even for item 0" in notes
    assert "2 of 143 patches hold" in notes
    assert "item 1" in notes
    assert explain(record, "uniform").notes == ("a baseline: it knows nothing of the model",)
    silent = AttentionRecord.from_weights([even], gradients=[-torch.ones_like(even)], layout=layout)
    assert "every score is 0 for every item" in " ".join(explain(silent, "attention_grad_cam").notes)
